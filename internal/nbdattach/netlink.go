package nbdattach

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Commands and attributes of the family.
const (
	familyName  = "nbd"
	groupName   = "nbd_mc_group"
	familyVer   = 1
	cmdConnect  = 1
	cmdDetach   = 2
	cmdReconfig = 3
	cmdLinkDead = 4
	cmdStatus   = 5

	attrIndex       = 1
	attrSize        = 2
	attrBlockSize   = 3
	attrTimeout     = 4
	attrServerFlags = 5
	attrSockets     = 7
	attrDeadTimeout = 8
	attrDeviceList  = 9
	attrBackend     = 10

	attrSocketItem = 1
	attrSocketFD   = 1

	attrDeviceItem      = 1
	attrDeviceIndex     = 1
	attrDeviceConnected = 2
)

// driver is a netlink socket to the kernel's client.
type driver struct {
	conn   *genetlink.Conn
	family genetlink.Family
}

func openDriver() (*driver, error) {
	conn, err := genetlink.Dial(nil)
	if err != nil {
		return nil, fmt.Errorf("netlink: %w", err)
	}
	family, err := conn.GetFamily(familyName)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = fmt.Errorf("%w: load it with modprobe nbd", ErrNoDriver)
	case err != nil:
		err = fmt.Errorf("netlink: %w", err)
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return &driver{conn, family}, nil
}

func (d *driver) close() error { return d.conn.Close() }

// do sends a command and returns the answers. Commands that have none of their own are acknowledged; an
// acknowledgement besides an answer would be left behind in the socket.
func (d *driver) do(cmd uint8, encode func(*netlink.AttributeEncoder)) ([]genetlink.Message, error) {
	ae := netlink.NewAttributeEncoder()
	encode(ae)
	data, err := ae.Encode()
	if err != nil {
		return nil, err
	}
	flags := netlink.Request
	if cmd == cmdDetach || cmd == cmdReconfig {
		flags |= netlink.Acknowledge
	}
	msgs, err := d.conn.Execute(genetlink.Message{Header: genetlink.Header{Command: cmd, Version: familyVer}, Data: data}, d.family.ID, flags)
	if errors.Is(err, unix.EPERM) {
		err = fmt.Errorf("%w: run it as root", ErrPermission)
	}
	return msgs, err
}

// device is what the kernel is told of one.
type device struct {
	index       int // negative: the kernel chooses
	size        int64
	blockSize   int // bytes
	flags       uint16
	timeout     time.Duration // of a request
	deadTimeout time.Duration // of a device without a connection
	backend     string
	sockets     []int
}

func (v *device) encode(ae *netlink.AttributeEncoder) {
	if v.index >= 0 {
		ae.Uint32(attrIndex, uint32(v.index))
	}
	ae.Uint64(attrSize, uint64(v.size))
	ae.Uint64(attrBlockSize, uint64(v.blockSize))
	ae.Uint64(attrTimeout, uint64(v.timeout/time.Second))
	ae.Uint64(attrDeadTimeout, uint64(v.deadTimeout/time.Second))
	ae.Uint64(attrServerFlags, uint64(v.flags))
	ae.String(attrBackend, v.backend)
	ae.Nested(attrSockets, func(list *netlink.AttributeEncoder) error {
		for _, fd := range v.sockets {
			list.Nested(attrSocketItem, func(item *netlink.AttributeEncoder) error {
				item.Uint32(attrSocketFD, uint32(fd))
				return nil
			})
		}
		return nil
	})
}

// connect makes a device, and returns its number.
func (d *driver) connect(v *device) (int, error) {
	msgs, err := d.do(cmdConnect, v.encode)
	if errors.Is(err, unix.EBUSY) {
		return 0, fmt.Errorf("%s is %w", path(v.index), ErrInUse)
	}
	if last := lastDevice(); errors.Is(err, unix.EINVAL) && v.index > last {
		return 0, fmt.Errorf("%s is %w that the kernel can have: the last is %s", path(v.index), ErrName, path(last))
	}
	if err != nil {
		return 0, fmt.Errorf("connect an NBD device: %w", err)
	}
	for _, m := range msgs {
		ad, err := netlink.NewAttributeDecoder(m.Data)
		if err != nil {
			continue
		}
		for ad.Next() {
			if ad.Type() == attrIndex {
				return int(ad.Uint32()), ad.Err()
			}
		}
	}
	if v.index >= 0 {
		return v.index, nil
	}
	return 0, errors.New("connect an NBD device: the kernel does not say which one it is")
}

// reconfigure gives a device new sockets for those that broke. What is left over is not taken.
func (d *driver) reconfigure(v *device) error {
	if _, err := d.do(cmdReconfig, v.encode); err != nil {
		return fmt.Errorf("reconnect %s: %w", path(v.index), err)
	}
	return nil
}

// resize gives a device another size. The kernel waits for the requests that are under way, and holds others back
// meanwhile.
func (d *driver) resize(v *device) error {
	_, err := d.do(cmdReconfig, func(ae *netlink.AttributeEncoder) {
		ae.Uint32(attrIndex, uint32(v.index))
		ae.Uint64(attrSize, uint64(v.size))
		ae.Uint64(attrBlockSize, uint64(v.blockSize))
		ae.String(attrBackend, v.backend)
	})
	if err != nil {
		return fmt.Errorf("resize %s: %w", path(v.index), err)
	}
	return nil
}

func (d *driver) disconnect(index int) error {
	_, err := d.do(cmdDetach, func(ae *netlink.AttributeEncoder) { ae.Uint32(attrIndex, uint32(index)) })
	if err != nil {
		return fmt.Errorf("disconnect %s: %w", path(index), err)
	}
	return nil
}

// connected lists the numbers of devices that are connected.
func (d *driver) connected() ([]int, error) {
	msgs, err := d.do(cmdStatus, func(*netlink.AttributeEncoder) {})
	if err != nil {
		return nil, fmt.Errorf("list NBD devices: %w", err)
	}
	var all []int
	for _, m := range msgs {
		ad, err := netlink.NewAttributeDecoder(m.Data)
		if err != nil {
			return nil, fmt.Errorf("list NBD devices: %w", err)
		}
		for ad.Next() {
			if ad.Type() == attrDeviceList {
				ad.Nested(func(list *netlink.AttributeDecoder) error {
					all = appendConnected(all, list)
					return nil
				})
			}
		}
		if err := ad.Err(); err != nil {
			return nil, fmt.Errorf("list NBD devices: %w", err)
		}
	}
	return all, nil
}

func appendConnected(all []int, list *netlink.AttributeDecoder) []int {
	for list.Next() {
		if list.Type() != attrDeviceItem {
			continue
		}
		list.Nested(func(item *netlink.AttributeDecoder) error {
			index, connected := -1, false
			for item.Next() {
				switch item.Type() {
				case attrDeviceIndex:
					index = int(item.Uint32())
				case attrDeviceConnected:
					connected = item.Uint8() != 0
				}
			}
			if index >= 0 && connected {
				all = append(all, index)
			}
			return nil
		})
	}
	return all
}

// isLinkDead says whether a message tells that a connection of the device broke.
func isLinkDead(m genetlink.Message, index int) bool {
	if m.Header.Command != cmdLinkDead {
		return false
	}
	ad, err := netlink.NewAttributeDecoder(m.Data)
	if err != nil {
		return false
	}
	for ad.Next() {
		if ad.Type() == attrIndex && int(ad.Uint32()) == index {
			return true
		}
	}
	return false
}

// subscribe has the driver's messages about broken connections arrive at this socket.
func (d *driver) subscribe() error {
	for _, g := range d.family.Groups {
		if g.Name == groupName {
			return d.conn.JoinGroup(g.ID)
		}
	}
	return fmt.Errorf("%w: it has no group %s", ErrNoDriver, groupName)
}
