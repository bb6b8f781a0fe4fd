package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
)

// kind is what an operation does.
type kind int

const (
	create kind = iota
	overwrite
	extend
	truncate
	rename
	remove
)

// An operation is one change of one file.
type operation struct {
	kind   kind
	name   string
	to     string // new name, for rename
	offset int64  // for overwrite; the new size for truncate
	data   []byte // for create, overwrite and extend
	sync   bool   // fsync the file afterwards
}

// Bounds of what is generated. Sizes straddle blocks on purpose.
const (
	directories = 16
	maxFile     = 96 << 10
	maxChange   = 24 << 10
)

// generate makes the operations of a seed one by one. What it makes depends
// on nothing but its arguments: it keeps the sizes of the files itself.
func generate(seed uint64, count int, do func(operation) error) error {
	g := generator{rng: rand.New(rand.NewPCG(seed, 1)), sizes: map[string]int64{}}
	for i := range count {
		if err := do(g.next(i)); err != nil {
			return fmt.Errorf("operation %d: %w", i, err)
		}
	}
	return nil
}

type generator struct {
	rng   *rand.Rand
	names []string
	sizes map[string]int64
}

func (g *generator) next(i int) operation {
	k := create
	if p := g.rng.IntN(100); len(g.names) > 0 {
		switch {
		case p < 20:
			k = overwrite
		case p < 35:
			k = extend
		case p < 42:
			k = truncate
		case p < 52:
			k = rename
		case p < 65:
			k = remove
		}
	}
	op := operation{kind: k, sync: g.rng.IntN(20) == 0}
	if k == create {
		op.name, op.data = g.fresh(i), g.bytes(maxFile)
		g.names = append(g.names, op.name)
		g.sizes[op.name] = int64(len(op.data))
		return op
	}
	at := g.rng.IntN(len(g.names))
	op.name = g.names[at]
	size := g.sizes[op.name]
	switch k {
	case overwrite:
		op.offset, op.data = g.rng.Int64N(size+1), g.bytes(maxChange)
		g.sizes[op.name] = max(size, op.offset+int64(len(op.data)))
	case extend:
		op.data = g.bytes(maxChange)
		g.sizes[op.name] = size + int64(len(op.data))
	case truncate:
		op.offset = g.rng.Int64N(size + 1)
		g.sizes[op.name] = op.offset
	case rename:
		op.to = g.fresh(i)
		g.names[at], g.sizes[op.to] = op.to, size
		delete(g.sizes, op.name)
	case remove:
		g.names[at] = g.names[len(g.names)-1]
		g.names = g.names[:len(g.names)-1]
		delete(g.sizes, op.name)
	}
	return op
}

func (g *generator) fresh(i int) string {
	return fmt.Sprintf("dir%02d/file%06d", g.rng.IntN(directories), i)
}

func (g *generator) bytes(limit int) []byte {
	data := make([]byte, 1+g.rng.IntN(limit))
	var word uint64
	for i := range data {
		if i%8 == 0 {
			word = g.rng.Uint64()
		}
		data[i] = byte(word >> (i % 8 * 8))
	}
	return data
}

// onDisk does the operation below root.
func (op operation) onDisk(root string) error {
	path := filepath.Join(root, op.name)
	switch op.kind {
	case remove:
		return os.Remove(path)
	case truncate:
		return os.Truncate(path, op.offset)
	case rename:
		to := filepath.Join(root, op.to)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		return os.Rename(path, to)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := op.writeTo(f); err != nil {
		return err
	}
	if op.sync {
		if err := f.Sync(); err != nil {
			return err
		}
	}
	return f.Close()
}

func (op operation) writeTo(f *os.File) error {
	offset := op.offset
	if op.kind == extend {
		st, err := f.Stat()
		if err != nil {
			return err
		}
		offset = st.Size()
	}
	_, err := f.WriteAt(op.data, offset)
	return err
}
