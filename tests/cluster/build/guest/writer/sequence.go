package main

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"os"
)

// A sequence file is a ring of records of fixed width: record n is at slot n mod historyRecords. So the
// file keeps its size, every step changes another place, and a stale block betrays itself by its number.
// tests/cluster/guest/judge.py reads the same format.
const (
	recordSize     = 64
	historyRecords = 4096
)

// record is the text of step n on a disk, one line of exactly recordSize bytes.
func record(disk string, n uint64) []byte {
	body := fmt.Sprintf("%020d %s", n, disk)
	line := fmt.Sprintf("%s %08x", body, crc32.ChecksumIEEE([]byte(body)))
	return fmt.Appendf(nil, "%-*s\n", recordSize-1, line)
}

// sequence is the ordered-sequence file of one disk.
type sequence struct {
	disk string
	file *os.File
	last uint64
}

// openSequence opens or creates a file and finds the last step in it; 0 stands for none.
func openSequence(disk, path string) (*sequence, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	s := &sequence{disk: disk, file: file}
	for ; len(content) >= recordSize; content = content[recordSize:] {
		var n uint64
		if _, err := fmt.Sscanf(string(content[:recordSize]), "%020d ", &n); err != nil {
			continue
		}
		if bytes.Equal(content[:recordSize], record(disk, n)) && n > s.last {
			s.last = n
		}
	}
	return s, nil
}

// write makes step n durable.
func (s *sequence) write(n uint64) error {
	if _, err := s.file.WriteAt(record(s.disk, n), int64(n%historyRecords)*recordSize); err != nil {
		return err
	}
	if err := s.file.Sync(); err != nil {
		return err
	}
	s.last = n
	return nil
}
