// Command gonbd serves a file as the NBD export vol0 with the server of
// github.com/pojntfx/go-nbd, as a baseline for the benchmark. It runs until it
// is killed:
//
//	gonbd SOCKET FILE
package main

import (
	"fmt"
	"net"
	"os"

	"github.com/pojntfx/go-nbd/pkg/backend"
	"github.com/pojntfx/go-nbd/pkg/server"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: gonbd SOCKET FILE")
		os.Exit(2)
	}
	if err := serve(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "gonbd:", err)
		os.Exit(1)
	}
}

func serve(socket, path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	listener, err := net.Listen("unix", socket)
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
				fmt.Fprintln(os.Stderr, "gonbd:", err)
			}
		}()
	}
}
