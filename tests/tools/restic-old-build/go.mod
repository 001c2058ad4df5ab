// Builds restic 0.14, the first with format 2, from its module, pinned; tests/tools/restic.py runs the build.
module coeval.dev/tests/tools/restic

go 1.25

require github.com/restic/restic v0.14.0
