package kvmhook

import "errors"

func runGuest([]byte) (answer, error) { return answer{}, errors.New("no guest yet") }
