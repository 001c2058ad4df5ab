package main

import (
	"path/filepath"
	"strings"
	"testing"
)

func open(t *testing.T, folder, disk string) *sequence {
	t.Helper()
	s, err := openSequence(disk, filepath.Join(folder, disk))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestRecordsHaveOneWidth(t *testing.T) {
	for _, n := range []uint64{1, 99, 1 << 63} {
		if text := record("a0", n); len(text) != recordSize || text[recordSize-1] != '\n' {
			t.Errorf("record %d is %q", n, text)
		}
	}
}

func TestTheLastStepIsFoundAfterTheRingTurned(t *testing.T) {
	folder := t.TempDir()
	s := open(t, folder, "a0")
	for n := uint64(1); n <= historyRecords+7; n++ {
		if err := s.write(n); err != nil {
			t.Fatal(err)
		}
	}
	if again := open(t, folder, "a0"); again.last != historyRecords+7 {
		t.Errorf("found %d", again.last)
	}
}

func TestResume(t *testing.T) {
	cases := []struct {
		values []uint64
		next   uint64 // 0 is broken
	}{
		{[]uint64{0, 0}, 1},
		{[]uint64{5, 5}, 6},
		{[]uint64{6, 5}, 6},
		{[]uint64{6, 6, 5, 5}, 6},
		{[]uint64{5, 6}, 0},
		{[]uint64{7, 5}, 0},
		{[]uint64{6, 5, 6, 5}, 0},
	}
	for _, c := range cases {
		var sequences []*sequence
		for _, value := range c.values {
			sequences = append(sequences, &sequence{disk: "x", last: value})
		}
		next, err := resume(sequences)
		if next != c.next || (err != nil) != (c.next == 0) {
			t.Errorf("%v: next step %d, error %v", c.values, next, err)
		}
		if err != nil && !strings.Contains(err.Error(), "BROKEN") {
			t.Errorf("%v: %v", c.values, err)
		}
	}
}

func TestChurnStaysInItsBounds(t *testing.T) {
	c, err := newChurn(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for range 500 {
		if err := c.change(); err != nil {
			t.Fatal(err)
		}
	}
	files, _ := filepath.Glob(filepath.Join(c.folder, "*"))
	if len(files) == 0 || len(files) > churnFiles {
		t.Errorf("%d files", len(files))
	}
}
