// Builds the restic program from its module, pinned; tests/tools/go_programs.py runs the build.
module coeval.dev/tests/tools/restic

go 1.25

require github.com/restic/restic v0.18.1
