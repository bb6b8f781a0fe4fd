package guest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// ErrUnavailable means that this machine lacks something that guests need and
// that cannot be fetched: the test should be skipped, and the error says why.
var ErrUnavailable = errors.New("guest cannot run here")

// CacheEnv names the environment variable that says where kernels are kept.
const CacheEnv = "LSAD_GUEST_CACHE"

// cacheDir returns the directory that unpacked kernels are kept in, made if
// need be.
func cacheDir() (string, error) {
	dir := os.Getenv(CacheEnv)
	if dir == "" {
		root, err := moduleRoot()
		if err != nil {
			return "", err
		}
		dir = filepath.Join(root, ".cache", "guest")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("guest cache: %w", err)
	}
	return filepath.Abs(dir)
}

// moduleRoot finds the directory of go.mod, from the working directory up.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", fmt.Errorf("no go.mod above the working directory; set %s", CacheEnv)
		}
		dir = parent
	}
}

// lockCache keeps other processes out of dir until the file that it returns is
// closed.
func lockCache(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if err == nil {
			return f, nil
		}
		if err != unix.EINTR {
			f.Close()
			return nil, fmt.Errorf("lock guest cache %s: %w", dir, err)
		}
	}
}
