package memsvc

import (
	"context"

	"lsad/kvmhook/guestmem"
)

// FindFree looks for the pages of a source that its guest has free, and calls free with ranges of them, in bytes of
// the source. If it cannot be sure about any, the report says why. The guest must not run.
func FindFree(ctx context.Context, src *Source, free func(off, n int64)) (guestmem.Report, error) {
	i := &importing{s: &Service{freePages: guestmem.FreePages}, src: src, o: &ImportOptions{Progress: &Progress{}}}
	var err error
	if i.data, err = src.extents(); err != nil {
		return i.report, err
	}
	if err := i.findFree(ctx); err != nil || i.free == nil {
		return i.report, err
	}
	for _, s := range i.spans {
		for off := int64(0); off < s.size; {
			n := int64(0)
			for off+n < s.size && i.free.Has(s.first+uint64(off+n)/PageSize) {
				n += PageSize
			}
			if n > 0 {
				free(s.off+off, n)
			}
			off += max(n, PageSize)
		}
	}
	return i.report, nil
}
