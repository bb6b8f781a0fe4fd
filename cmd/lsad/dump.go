package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"lsad/internal/blockdev"
	"lsad/internal/config"
	"lsad/lsa/format"
)

// offline is what a command needs that looks at the devices of a stopped array.
type offline struct {
	dir     string
	devices []string
	json    bool
}

func (o *offline) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&o.dir, "dir", config.DefaultDir, "data `DIR` of the array")
	cmd.Flags().StringArrayVar(&o.devices, "device", nil, "a device, `PATH`, instead of those that DIR remembers; may be repeated")
	cmd.Flags().BoolVar(&o.json, "json", false, "print JSON")
}

// open opens the devices for reading. They are locked, so that it fails while a server runs.
func (o *offline) open(missingOK bool) (deviceSet, error) {
	var specs []config.DeviceSpec
	for _, path := range o.devices {
		specs = append(specs, config.DeviceSpec{Path: path})
	}
	if len(specs) == 0 {
		d := &dataDir{path: o.dir}
		m, err := d.readMembers()
		if err != nil {
			return nil, err
		}
		if m == nil {
			return nil, fmt.Errorf("there is no array in %s; name its data directory with --dir, or its devices with --device", o.dir)
		}
		for _, path := range m.Devices {
			specs = append(specs, config.DeviceSpec{Path: path})
		}
	}
	return openDevices(specs, true, missingOK)
}

func newDump() *cobra.Command {
	var o offline
	var segments bool
	var segment string
	cmd := &cobra.Command{
		Use:   "dump",
		Short: "Show what is on the devices of a stopped array",
		Long: `Show what is on the devices of a stopped array, as it is, and change nothing: both copies of each
superblock; with --segments a line for each segment that was ever used; with --segment every
record of one. The metadata store is not read.`,
		Example: `  lsad dump
  lsad dump --segments
  lsad dump --segment 0/12            device slot 0, segment 12
  lsad dump --device /dev/sdb --json`,
		Args: takes(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if segments && segment != "" {
				return config.Usagef("--segments and --segment do not go together")
			}
			set, err := o.open(true)
			if err != nil {
				return err
			}
			defer set.close()
			d := dumper{out: cmd.OutOrStdout(), cmd: cmd, json: o.json}
			switch {
			case segment != "":
				return d.oneSegment(set, segment)
			case segments:
				return d.segments(set)
			}
			return d.superblocks(set)
		},
	}
	o.flags(cmd)
	cmd.Flags().BoolVar(&segments, "segments", false, "list the segments")
	cmd.Flags().StringVar(&segment, "segment", "", "show the records of `SLOT/SEGMENT`")
	return cmd
}

// dumper prints parts of devices.
type dumper struct {
	out  io.Writer
	cmd  *cobra.Command
	json bool
}

// superCopy is one copy of a superblock, or what is wrong with it.
type superCopy struct {
	Device string             `json:"device"`
	Offset int64              `json:"offset"`
	Super  *format.Superblock `json:"superblock,omitempty"`
	Error  string             `json:"error,omitempty"`
}

// readCopies reads both copies of a device's superblock.
func readCopies(dev blockdev.Device) (copies []superCopy, newest *format.Superblock) {
	for _, off := range []int64{format.SuperblockOffsetA, format.SuperblockOffsetB} {
		c := superCopy{Device: dev.Name(), Offset: off}
		buf := make([]byte, format.SuperblockSize)
		err := dev.ReadAt(buf, off)
		if err == nil {
			c.Super, err = format.DecodeSuperblock(buf)
		}
		if err != nil {
			c.Error = err.Error()
		} else if newest == nil || c.Super.Sequence > newest.Sequence {
			newest = c.Super
		}
		copies = append(copies, c)
	}
	return copies, newest
}

func (d *dumper) superblocks(set deviceSet) error {
	var all []superCopy
	for _, dev := range set {
		copies, _ := readCopies(dev)
		all = append(all, copies...)
	}
	if d.json {
		for i := range all {
			if s := all[i].Super; s != nil {
				s.Secret = 0 // whoever knows it can forge records
			}
		}
		return printJSON(d.cmd, all)
	}
	for _, c := range all {
		if err := d.superblock(c); err != nil {
			return err
		}
	}
	return nil
}

func (d *dumper) superblock(c superCopy) error {
	fmt.Fprintf(d.out, "%s: superblock at offset %d\n", c.Device, c.Offset)
	t := newTable(d.out)
	if c.Error != "" {
		t.row("  damaged:", c.Error)
		return t.flush()
	}
	s := c.Super
	t.row("  array:", s.Array.String())
	t.row("  device:", fmt.Sprintf("%v, slot %d of %d", s.Device, s.Slot, len(s.Devices)))
	t.row("  features:", fmt.Sprintf("compatible %#x, incompatible %#x", s.Compat, s.Incompat))
	t.row("  segment size:", config.Size(s.SegmentSize).String())
	t.row("  sequence:", strconv.FormatUint(s.Sequence, 10))
	t.row("  epoch:", fmt.Sprintf("%d, after LSN %d", s.Epoch, s.CutLSN))
	t.row("  state:", fmt.Sprintf("served %v, clean %v", s.Served, s.Clean))
	t.row("  incarnation:", fmt.Sprintf("%016x, boot %v", s.Incarnation, s.Boot))
	for i, row := range s.Devices {
		t.row(first("  devices:", i), fmt.Sprintf("%d: %v, %d segments, %v", i, row.ID, row.Segments, row.State))
	}
	return t.flush()
}

// segmentLine sums up one segment.
type segmentLine struct {
	Slot       int    `json:"slot"`
	Segment    uint32 `json:"segment"`
	Generation uint64 `json:"generation"`
	Epoch      uint64 `json:"last_epoch"`
	Records    int    `json:"records"`
	Blocks     int    `json:"blocks"`
	FirstLSN   uint64 `json:"first_lsn"`
	LastLSN    uint64 `json:"last_lsn"`
	Bytes      int64  `json:"bytes"`
}

func (d *dumper) segments(set deviceSet) error {
	var all []segmentLine
	for _, dev := range set {
		_, super := readCopies(dev)
		if super == nil {
			return fmt.Errorf("device %s has no intact superblock; lsad dump says more", dev.Name())
		}
		for seg := range super.Devices[super.Slot].Segments {
			line := segmentLine{Slot: int(super.Slot), Segment: seg}
			err := eachRecord(dev, super, seg, false, func(r *recordOnDisk) error {
				line.add(r)
				return nil
			})
			if err != nil {
				return err
			}
			if line.Records > 0 {
				all = append(all, line)
			}
		}
	}
	if d.json {
		return printJSON(d.cmd, all)
	}
	t := newTable(d.out, "SEGMENT", "GENERATION", "EPOCH", "RECORDS", "BLOCKS", "LSN", "USED")
	for _, l := range all {
		t.row(fmt.Sprintf("%d/%d", l.Slot, l.Segment), strconv.FormatUint(l.Generation, 10), strconv.FormatUint(l.Epoch, 10),
			strconv.Itoa(l.Records), strconv.Itoa(l.Blocks), fmt.Sprintf("%d..%d", l.FirstLSN, l.LastLSN), size(l.Bytes))
	}
	return t.flush()
}

func (l *segmentLine) add(r *recordOnDisk) {
	h := &r.header
	if l.Records == 0 || h.FirstLSN < l.FirstLSN {
		l.FirstLSN = h.FirstLSN
	}
	l.Records++
	l.Blocks += int(h.Blocks)
	l.Generation = h.Generation
	l.Epoch = max(l.Epoch, h.Epoch)
	l.LastLSN = max(l.LastLSN, h.LastLSN())
	l.Bytes = int64(h.Sector+h.TotalSectors()) * format.SectorSize
}

func (d *dumper) oneSegment(set deviceSet, where string) error {
	slotText, segText, ok := strings.Cut(where, "/")
	slot, err := strconv.Atoi(slotText)
	seg, err2 := strconv.ParseUint(segText, 10, 32)
	if !ok || err != nil || err2 != nil {
		return config.Usagef("segment %q: want SLOT/SEGMENT, such as 0/12", where)
	}
	for _, dev := range set {
		_, super := readCopies(dev)
		if super == nil || int(super.Slot) != slot {
			continue
		}
		if have := super.Devices[slot].Segments; seg >= uint64(have) {
			return fmt.Errorf("device %s has segments 0 to %d", dev.Name(), have-1)
		}
		return d.records(dev, super, uint32(seg))
	}
	return fmt.Errorf("there is no device of slot %d with an intact superblock", slot)
}

func (d *dumper) records(dev blockdev.Device, super *format.Superblock, seg uint32) error {
	var all []recordLine
	err := eachRecord(dev, super, seg, true, func(r *recordOnDisk) error {
		line, err := r.line()
		if err == nil {
			all = append(all, line)
		}
		return err
	})
	if err != nil {
		return err
	}
	if d.json {
		return printJSON(d.cmd, all)
	}
	if len(all) == 0 {
		_, err := fmt.Fprintf(d.out, "no records: segment %d/%d was never used, or none of its records is intact\n", super.Slot, seg)
		return err
	}
	for _, l := range all {
		fmt.Fprintf(d.out, "sector %d, %d sectors: LSN %d..%d, epoch %d, generation %d, durable %d, %d blocks%s\n",
			l.Sector, l.Sectors, l.FirstLSN, l.LastLSN, l.Epoch, l.Generation, l.DurableLSN, l.Blocks, l.Flags)
		for _, e := range l.Entries {
			if _, err := fmt.Fprintf(d.out, "  %s\n", e); err != nil {
				return err
			}
		}
	}
	return nil
}
