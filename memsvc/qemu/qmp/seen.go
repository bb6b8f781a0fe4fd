package qmp

// Seen says whether one of these events came that nobody has waited for yet.
func (c *Client) Seen(names ...string) bool {
	for _, e := range c.events {
		for _, name := range names {
			if e.Name == name {
				return true
			}
		}
	}
	return false
}
