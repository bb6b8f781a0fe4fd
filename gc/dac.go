package gc

// dac is dynamic data clustering (Chiang, Lee and Chang, 1999): the classes are regions from cold to hot. A block
// that is overwritten goes one region up from where its old version is, a block that is collected goes one
// down. The region of a block's segment is all the history that it needs.
type dac struct{}

// dacClasses is the number of regions; more of them are better up to about eight.
const dacClasses = 8

func (dac) Name() string                    { return "dac" }
func (dac) Classes() int                    { return dacClasses }
func (dac) Victim(uint64, SegmentInfo, int) {}

func (dac) Place(b Block) int {
	region := min(max(b.Class, 0), dacClasses-1)
	switch {
	case !b.Known:
		return 0
	case b.Collected:
		return max(0, region-1)
	}
	return min(region+1, dacClasses-1)
}
