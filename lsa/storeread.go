package lsa

import (
	"fmt"
	"time"
)

// What happens when the metadata store cannot be read: what the cache does not have of the map is missing, and reads of
// such blocks, and writes to them, are I/O errors. The status says so until the page that showed it can be read again, which
// is tried once a second.

// unreadProblem is the error while a part of the map cannot be read, nil otherwise.
func (a *Array) unreadProblem() error {
	u := a.blocks.Unread()
	if u == nil {
		return nil
	}
	return fmt.Errorf("metadata store %s: %w since %s: %w; reads and writes of what the map cache lacks are I/O errors until it can, nothing acknowledged is lost: see to its disk",
		a.opts.Meta, ErrStoreUnread, u.Since.Format(time.TimeOnly), u.Err)
}

// tryUnread finds out whether the store can be read again, and tells of it.
func (a *Array) tryUnread() {
	before := a.blocks.Unread()
	if before == nil {
		a.unreadSaid = nil
		return
	}
	if a.unreadSaid != before {
		a.unreadSaid = before
		a.log.Error("the metadata store cannot be read; what needs it is an I/O error, and it is tried again", "dir", a.opts.Meta, "error", before.Err)
	}
	if a.blocks.TryUnread(); a.blocks.Unread() == nil {
		a.log.Info("the metadata store can be read again", "dir", a.opts.Meta, "after", time.Since(before.Since).Round(time.Millisecond))
	}
}
