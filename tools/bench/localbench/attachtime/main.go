// Command attachtime says how long it takes until a volume of the server in the working directory's lsad-data can be read
// as a disk, without the time that the start of a command takes. It runs in the guest of package localbench.
//
//	attachtime ublk VOLUME   asks the server for a disk, as lsad ublk add does, and removes it again
//	attachtime nbd VOLUME    attaches, as lsad attach does, and detaches
//
// It prints two numbers of milliseconds: until the disk was there, and until its first block had been read.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"lsad/internal/nbdattach"
	"lsad/internal/nbdclient"
	"lsad/server/admin"
)

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "attachtime:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) != 2 {
		return errors.New("usage: attachtime ublk|nbd VOLUME")
	}
	switch args[0] {
	case "ublk":
		return ublk(ctx, args[1])
	case "nbd":
		return nbd(ctx, args[1])
	}
	return fmt.Errorf("no way to attach is called %q", args[0])
}

func ublk(ctx context.Context, volume string) error {
	client := admin.NewClient("unix", "lsad-data/admin.sock", "")
	begin := time.Now()
	d, err := client.AddUblk(ctx, admin.AddUblk{Volume: volume})
	if err != nil {
		return err
	}
	return errors.Join(report(begin, d.Path), client.DeleteUblk(ctx, d.Path, false))
}

func nbd(ctx context.Context, volume string) error {
	uri := "nbd+unix:///" + volume + "?socket=lsad-data/nbd.sock"
	target, err := nbdclient.ParseURI(uri)
	if err != nil {
		return err
	}
	begin := time.Now()
	a, err := nbdattach.Attach(ctx, nbdattach.Options{Target: target, URI: uri, Device: 0, Connections: 1})
	if err != nil {
		return err
	}
	return errors.Join(report(begin, a.Path()), a.Detach(), a.Close())
}

// report reads the first block of a disk, and prints when it was there and when it had been read.
func report(begin time.Time, path string) error {
	there := time.Since(begin)
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	defer unix.Close(fd)
	buf, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return err
	}
	defer unix.Munmap(buf)
	if _, err := unix.Pread(fd, buf, 0); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	fmt.Printf("%.2f %.2f\n", ms(there), ms(time.Since(begin)))
	return nil
}
