package main

import (
	"bytes"
	"compress/gzip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func packed(t *testing.T, content []byte) string {
	t.Helper()
	var buffer bytes.Buffer
	writer := gzip.NewWriter(&buffer)
	writer.Write(content)
	writer.Close()
	path := filepath.Join(t.TempDir(), "image.gz")
	if err := os.WriteFile(path, buffer.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestTheImageIsWrittenWithItsParametersAndGrown(t *testing.T) {
	image := make([]byte, 3*block+1000)
	copy(image[2*block:], "data")
	target := filepath.Join(t.TempDir(), "disk.img")
	if err := populate(packed(t, image), target, 8*block, "writer=idle"); err != nil {
		t.Fatal(err)
	}
	copy(image[parameterOffset:], "writer=idle\n")
	found, _ := os.ReadFile(target)
	if len(found) != 8*block || !bytes.Equal(found[:len(image)], image) {
		t.Errorf("%d bytes, %q", len(found), found[parameterOffset:parameterOffset+20])
	}
	if err := populate("", target, block, ""); err != nil {
		t.Errorf("a second run must leave the disk alone: %v", err)
	}
	if again, _ := os.ReadFile(target); !bytes.Equal(again, found) {
		t.Error("a second run changed the disk")
	}
}

func TestWhatDoesNotFitIsRefusedAndLeavesNoDisk(t *testing.T) {
	target := filepath.Join(t.TempDir(), "disk.img")
	source := packed(t, make([]byte, 2*block))
	for name, err := range map[string]error{
		"size":       populate(source, target, block, ""),
		"no size":    populate("", target, 0, ""),
		"parameters": populate(source, target, 0, strings.Repeat("x", parameterSize)),
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := os.Stat(target); err == nil {
		t.Error("a disk was made")
	}
}
