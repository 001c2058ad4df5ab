package main

import (
	crypto "crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
)

// Bounds of what the churn may take on a disk: churnFiles files of at most churnFileSize bytes.
const (
	churnFiles    = 48
	churnFileSize = 512 << 10
	churnWrite    = 64 << 10
)

const punchHole = 0x03 // FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE

// churn keeps changing a folder at random places, so that two moments of a disk differ all over it.
type churn struct {
	folder string
	random *rand.Rand
	data   *rand.ChaCha8
}

func newChurn(folder string) (*churn, error) {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return nil, err
	}
	var seed [32]byte
	if _, err := crypto.Read(seed[:]); err != nil {
		return nil, err
	}
	data := rand.NewChaCha8(seed)
	return &churn{folder: folder, random: rand.New(data), data: data}, nil
}

// change does one random thing to one random file: mostly writes, else a truncation, a hole or a deletion.
func (c *churn) change() error {
	path := filepath.Join(c.folder, fmt.Sprintf("%02d", c.random.IntN(churnFiles)))
	what := c.random.IntN(10)
	if what == 0 {
		if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	defer file.Close()
	offset := c.random.Int64N(churnFileSize - churnWrite)
	length := 1 + c.random.Int64N(churnWrite)
	switch what {
	case 1:
		return file.Truncate(offset)
	case 2, 3:
		return syscall.Fallocate(int(file.Fd()), punchHole, offset, length)
	default:
		content := make([]byte, length)
		c.data.Read(content)
		_, err = file.WriteAt(content, offset)
		return err
	}
}
