package crash

import "lsad/lsa"

// separateFrom so many segments on each device some arrays have blocks
// separated by class.
const separateFrom = 24

// placement spreads blocks over all classes, and differently each time.
type placement struct{}

// Class implements lsa.Placement.
func (placement) Class(now, written uint64, known bool, class int, moved bool) int {
	if !known {
		return 0
	}
	return int(now^written+uint64(class)) % lsa.MaxClasses
}
