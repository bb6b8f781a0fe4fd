package crash

import "fmt"

// sighting is a cell as a state shows it: one of these versions.
type sighting struct {
	vol      *volume
	cell     int
	versions []version // of before the crash
	seen     tag
	chosen   int  // the version that it is taken for: the first that holds seen at first
	only     bool // no other holds it
}

// next chooses the next version that holds what was seen.
func (s *sighting) next() bool {
	for i := s.chosen + 1; i < len(s.versions); i++ {
		if s.seen == unreadable || s.versions[i].tag == s.seen {
			s.chosen = i
			return true
		}
	}
	return false
}

func (s *sighting) history() string {
	text := ""
	for _, v := range s.versions[max(0, len(s.versions)-6):] {
		if v.op == nil {
			text += fmt.Sprintf(" [%d before]", v.tag)
			continue
		}
		text += fmt.Sprintf(" [%d %s %d-%d failed=%v]", v.tag, v.op.kind, v.op.inv, v.op.ack, v.op.failed)
	}
	return text
}

// included is when the change that made the version at position k was asked for.
func (s *sighting) included() int64 {
	if o := s.versions[s.chosen].op; o != nil {
		return o.inv
	}
	return 0
}

// excluded is when the first change was acknowledged that the state lacks.
func (s *sighting) excluded(when, durable int64) (int64, *op) {
	for _, v := range s.versions[s.chosen+1:] {
		if v.op.kind == "failure" && v.op.ack >= durable {
			continue
		}
		if !v.op.failed && v.op.ack != 0 {
			if v.op.ack >= when {
				break
			}
			return v.op.ack, v.op
		}
	}
	return never, nil
}
