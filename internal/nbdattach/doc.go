// Package nbdattach makes NBD exports block devices of this machine, /dev/nbdN, through the kernel's own client and
// its generic netlink interface (include/uapi/linux/nbd-netlink.h), and keeps them connected.
//
// The package negotiates with the server (internal/nbdclient) and hands the sockets to the kernel, which sends and
// receives from then on. An Attachment then watches the device: when connections break it makes new ones and hands
// these over too. The kernel holds requests back meanwhile, and issues again what was under way, so that users of
// the device see a delay and no error.
//
// # What a reconnection must not hide
//
// The kernel takes acknowledged writes for written, and so do its users until they ask for a flush. A server that
// was killed has them; one whose machine lost power may not, and to go on as if nothing had happened would be
// silent corruption. An lsad server therefore tells an incarnation with each export, which changes when writes
// that were acknowledged may be lost. It is part of the identity that the kernel keeps with the device (its
// "backend"), which it compares itself: a server of another incarnation is not reconnected to, and the requests
// that wait fail.
//
// # Ownership
//
// The kernel owns the device; it stays when this process ends. Who watches it holds a lock on
// /run/lsad-nbdN.lock, which tells attachments that nobody watches from those that somebody does. An Attachment
// has one goroutine, which listens to the kernel; Run waits for it.
package nbdattach
