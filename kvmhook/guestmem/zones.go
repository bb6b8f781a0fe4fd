package guestmem

import "fmt"

// zoneCounts are the counts that the guest's allocator keeps of its free pages.
type zoneCounts struct {
	zones  int               // that have pages
	blocks [maxOrders]uint64 // free blocks by order, exact
	pages  uint64            // in them
	stat   uint64            // NR_FREE_PAGES, which leaves out what processors have not yet added
}

// readZones adds up the counts of all zones of all nodes.
func readZones(t *pageTables, k *kernel) (zoneCounts, error) {
	var c zoneCounts
	if k.nodes == 0 {
		return c, c.addNode(t, k, k.nodeData)
	}
	for i := range k.nodes {
		node, err := t.uint64(k.nodeData + 8*i)
		if err != nil {
			return c, fmt.Errorf("node_data: %w", err)
		}
		if node == 0 {
			continue
		}
		if err := c.addNode(t, k, node); err != nil {
			return c, fmt.Errorf("node %d: %w", i, err)
		}
	}
	return c, nil
}

func (c *zoneCounts) addNode(t *pageTables, k *kernel, node uint64) error {
	n, err := t.uint32(node + k.nodeNrZones)
	if err != nil {
		return err
	}
	if n > maxZones || k.nodeZones+uint64(n)*k.zoneSize > k.nodeSize {
		return fmt.Errorf("it claims to have %d zones", n)
	}
	for i := range uint64(n) {
		if err := c.addZone(t, k, node+k.nodeZones+i*k.zoneSize); err != nil {
			return fmt.Errorf("zone %d: %w", i, err)
		}
	}
	return nil
}

func (c *zoneCounts) addZone(t *pageTables, k *kernel, zone uint64) error {
	spanned, err := t.uint64(zone + k.zoneSpanned)
	if err != nil || spanned == 0 {
		return err
	}
	c.zones++
	for order := range k.orders {
		area := zone + k.zoneFreeArea + order*k.freeAreaSize
		n, err := t.uint64(area + k.freeAreaSize - 8)
		if err != nil {
			return err
		}
		if n > t.m.Pages()>>order {
			return fmt.Errorf("it claims to have %d free blocks of order %d", n, order)
		}
		c.blocks[order] += n
		c.pages += n << order
	}
	stat, err := t.uint64(zone + k.zoneVMStat + 8*k.statFreePages)
	if err != nil {
		return err
	}
	if int64(stat) > 0 { // it may be below zero for a moment
		c.stat += stat
	}
	return nil
}

// differ returns by how many blocks a count of heads differs from the zones'
// own.
func (c *zoneCounts) differ(heads *[maxOrders]uint64) uint64 {
	var n uint64
	for order := range heads {
		n += max(heads[order], c.blocks[order]) - min(heads[order], c.blocks[order])
	}
	return n
}
