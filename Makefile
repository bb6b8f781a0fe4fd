# make run    builds the server and starts it with its defaults
# make test   installs what the tests need, and runs all of them
# make soak   the long version: crash exploration and fuzzing for hours' worth of states
# make bench  compares with other NBD servers

.PHONY: build run test soak bench

build:
	CGO_ENABLED=0 go build -o bin/lsad ./cmd/lsad

run: build
	bin/lsad serve

test:
	tools/ci/test

soak:
	tools/ci/soak

bench:
	go run ./tools/bench nbd
