// Package ublk serves block devices of the machine that it runs on: /dev/ublkbN, through Linux's ublk driver.
//
// It owns the devices it makes, their queues and the memory of their requests. What is served comes through the
// interface Export, declared here; the package knows nothing of how blocks are stored and imports, of this module,
// only internal/uring and internal/loopdev. Numbers and layouts come from include/uapi/linux/ublk_cmd.h; what the driver does with them
// from Documentation/block/ublk.rst and drivers/block/ublk_drv.c of Linux 6.12.
//
// # A device
//
// A device has one or more queues, and each queue one goroutine that is locked to its thread: to the driver that
// thread is the queue, and its end is the queue's end, which must come before that of its ring. With one system call it hands over what is done and takes in
// what there is to do. All writes that came together become one Export.WriteBatch; reads that need no disk are
// answered on the spot; what may wait (a read from disk, a flush, a discard) is a job for the queue's workers,
// whose results the queue hands over when an eventfd wakes it. Every request has a buffer of its own for its whole
// life, which the driver copies to and from, so nothing is copied here.
//
// # Its life
//
// Devices are made so that they outlive their server (UBLK_F_USER_RECOVERY_REISSUE): when it is killed, requests
// wait, those under way are issued again, and Resume takes the device over. Requests may so be carried out twice,
// which does no harm: the first time nobody was told that they were. Leave ends serving in the same way without a
// crash; Stop removes the device.
//
// A device carries a key that its server chose (in ublksrv_flags, which the driver keeps and does not read), by
// which the next server knows it again. It is gone with the kernel that it was in, as the device is, so that the
// two never disagree.
//
// # Locks
//
// queue.ended guards the eventfd from its end on. results.mu (what workers have done) and workers.mu (what waits for
// them) are held for a few instructions, never together, and never across I/O or a call of an Export.
package ublk
