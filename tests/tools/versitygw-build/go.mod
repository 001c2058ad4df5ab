// Builds the versitygw program, an S3 server over a folder, from its module, pinned; tests/tools/go_programs.py runs the build.
module coeval.dev/tests/tools/versitygw

go 1.25

require github.com/versity/versitygw v1.8.0
