module coeval.dev/tests/cluster/build/guest

go 1.26.0
