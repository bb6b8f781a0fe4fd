// Command filetree makes a tree of files by a random but repeatable sequence
// of operations, and can later tell whether a tree is what the same sequence
// leaves: same names, same bytes, nothing missing and nothing more.
//
//	filetree write  DIR SEED OPERATIONS
//	filetree verify DIR SEED OPERATIONS
//
// It runs in the guest, on a file system on the device under test.
package main

import (
	"fmt"
	"os"
	"strconv"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "filetree:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	usage := fmt.Errorf("usage: filetree write|verify DIR SEED OPERATIONS")
	if len(args) != 4 {
		return usage
	}
	seed, err := strconv.ParseUint(args[2], 10, 64)
	if err != nil {
		return usage
	}
	operations, err := strconv.Atoi(args[3])
	if err != nil {
		return usage
	}
	want := newTree()
	switch args[0] {
	case "write":
		err = generate(seed, operations, func(op operation) error { return apply(args[1], op, want) })
	case "verify":
		err = generate(seed, operations, want.apply)
		if err == nil {
			err = want.compare(args[1])
		}
	default:
		return usage
	}
	if err != nil {
		return err
	}
	files, bytes := want.size()
	fmt.Printf("%d files, %d bytes\n", files, bytes)
	return nil
}

// apply does an operation on disk, then in the model.
func apply(root string, op operation, model *tree) error {
	if err := op.onDisk(root); err != nil {
		return err
	}
	return model.apply(op)
}
