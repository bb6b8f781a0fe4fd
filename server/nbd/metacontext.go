package nbd

import "lsad/internal/nbdproto"

// metaContext is a kind of information about ranges that clients may ask for with BLOCK_STATUS. To add one,
// add it to metaContexts.
type metaContext struct {
	// name is NAMESPACE:LEAF.
	name string
	// status calls emit with consecutive ranges from off on, and their flags, until emit returns false or
	// [off, off+n) is covered.
	status func(e Export, off, n int64, emit func(n int64, flags uint64) bool) error
}

var metaContexts = []metaContext{
	{name: nbdproto.ContextAllocation, status: allocation},
}

// activeContext is a metadata context that a client selected.
type activeContext struct {
	id uint32 // as the client was told
	*metaContext
}

// allocation says which ranges are holes and which read as zeros.
func allocation(e Export, off, n int64, emit func(n int64, flags uint64) bool) error {
	return e.Extents(off, n, func(n int64, hole, zero bool) bool {
		flags := uint64(0)
		if hole {
			flags |= nbdproto.StateHole
		}
		if zero {
			flags |= nbdproto.StateZero
		}
		return emit(n, flags)
	})
}

// matchContext says whether a query of LIST (list true) or SET_META_CONTEXT selects the context of that name.
// NAMESPACE: alone is a wildcard for LIST, and selects nothing in SET.
func matchContext(query, name string, list bool) bool {
	if query == name {
		return true
	}
	return list && len(query) < len(name) && query != "" && query[len(query)-1] == ':' && name[:len(query)] == query
}
