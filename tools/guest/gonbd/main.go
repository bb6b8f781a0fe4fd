// Command gonbd is the client and the server of github.com/pojntfx/go-nbd. A test
// in the guest finds out with it whether that client gets on with our server; for
// the benchmark its server is a baseline. Attach and serve run until killed:
//
//	gonbd list HOST:PORT
//	gonbd attach HOST:PORT EXPORT /dev/nbdN
//	gonbd serve ADDR FILE
//
// Attach prints "attached" when the device has its size. ADDR is HOST:PORT or
// unix:PATH.
package main

import (
	"fmt"
	"net"
	"os"
	"strings"

	"github.com/pojntfx/go-nbd/pkg/backend"
	"github.com/pojntfx/go-nbd/pkg/client"
	"github.com/pojntfx/go-nbd/pkg/server"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "gonbd:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 2 && args[0] == "list":
		return list(args[1])
	case len(args) == 4 && args[0] == "attach":
		return attach(args[1], args[2], args[3])
	case len(args) == 3 && args[0] == "serve":
		return serve(args[1], args[2])
	}
	return fmt.Errorf("usage: gonbd list ADDR | gonbd attach ADDR EXPORT DEVICE | gonbd serve ADDR FILE")
}

func list(addr string) error {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	names, err := client.List(conn)
	if err != nil {
		return fmt.Errorf("list exports: %w", err)
	}
	fmt.Println(strings.Join(names, "\n"))
	return nil
}

func attach(addr, export, device string) error {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	dev, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer dev.Close()
	err = client.Connect(conn, dev, &client.Options{
		ExportName:  export,
		OnConnected: func() { fmt.Println("attached") },
	})
	if err != nil {
		return fmt.Errorf("attach: %w", err)
	}
	return nil
}

// serve serves a file as the export vol0 with go-nbd's own server, until it is
// killed: the control that shows whether an attach fails for another reason.
func serve(addr, path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	network := "tcp"
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		network, addr = "unix", path
	}
	listener, err := net.Listen(network, addr)
	if err != nil {
		return err
	}
	defer listener.Close()
	exports := []*server.Export{{Name: "vol0", Backend: backend.NewFileBackend(f)}}
	for {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			if err := server.Handle(conn, exports, nil); err != nil {
				fmt.Fprintln(os.Stderr, "gonbd: serve:", err)
			}
		}()
	}
}
