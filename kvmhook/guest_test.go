package kvmhook

import (
	"encoding/binary"
	"fmt"
	"os"
	"testing"

	"lsad/kvmhook/vmmtest"
)

// wordSum is what the guest must find in memory.
func wordSum(mem []byte) (sum uint64) {
	for page := vmmtest.GuestCode + 1; page < vmmtest.GuestPages; page++ {
		for p := mem[page*smallPage:][:256]; len(p) > 0; p = p[2:] {
			sum += uint64(binary.LittleEndian.Uint16(p))
		}
	}
	return sum & (1<<32 - 1)
}

func TestKVMGuest(t *testing.T) {
	if raceDetector {
		t.Skip("in a process built with the race detector the guest gave no answer within half a minute; without it the test takes a moment")
	}
	if f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0); err != nil {
		t.Skipf("no virtual machines here: %v", err)
	} else {
		f.Close()
	}
	for _, noFill := range []bool{true, false} {
		t.Run(fmt.Sprintf("fill %v", !noFill), func(t *testing.T) {
			src := newMemSource(vmmtest.GuestPages)
			copy(src.data[vmmtest.GuestCode*smallPage:], vmmtest.GuestProgram)
			want := append([]byte(nil), src.data...)
			r := newRig(t, Options{Source: src, NoFill: noFill})
			v := startVMM(t)
			v.do(order{Op: "map", Socket: r.socket, Version: 3, Regions: small(vmmtest.GuestPages)})
			written := uint64(0)
			for page := vmmtest.GuestCode + 1; page < vmmtest.GuestPages; page++ {
				written += uint64(page) << 8
			}
			run := func(when string) {
				t.Helper()
				a := v.do(order{Op: "guest"})
				if a.Regs != [2]uint64{wordSum(want), written & 0xFFFF} {
					t.Errorf("%s the guest found %x, want %x and %x", when, a.Regs, wordSum(want), written&0xFFFF)
				}
				for page := vmmtest.GuestCode + 1; page < vmmtest.GuestPages; page++ {
					binary.LittleEndian.PutUint16(want[page*smallPage:], uint16(page<<8))
				}
			}
			run("at first")
			run("with its own words in it")
			v.do(order{Op: "remove", First: 30, Last: 60}) // what a balloon does
			clear(want[30*smallPage : 60*smallPage])
			run("after a balloon took pages")
			if st := r.Status(); noFill && (st.FetchedFaults == 0 || st.ZeroFaults == 0) {
				t.Errorf("%+v", st)
			}
			r.end(v)
		})
	}
}
