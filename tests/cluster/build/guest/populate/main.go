// Command populate fills a volume with a guest's disk image: the boot disk that the container holds, or a
// blank one. It is done when the file has its name; a second run leaves it alone.
package main

import (
	"bytes"
	"compress/gzip"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log"
	"os"
)

// The guest's init reads its parameters from the sector after the boot record, which no partition uses.
const (
	parameterOffset = 512
	parameterSize   = 512
)

const block = 64 << 10

func main() {
	log.SetFlags(0)
	source := flag.String("image", "/disk.img.gz", "compressed boot disk; empty for a blank disk")
	target := flag.String("to", "/volume/disk.img", "disk image to make")
	size := flag.Int64("size", 0, "bytes; 0 keeps the boot disk's own size")
	parameters := flag.String("parameters", "", "what the guest shall do, as key=value words")
	flag.Parse()
	if err := populate(*source, *target, *size, *parameters); err != nil {
		log.Fatal(err)
	}
}

func populate(source, target string, size int64, parameters string) error {
	if _, err := os.Stat(target); !errors.Is(err, fs.ErrNotExist) {
		if err == nil {
			log.Printf("%s is already there", target)
		}
		return err
	}
	partial := target + ".partial"
	file, err := os.OpenFile(partial, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o660)
	if err != nil {
		return err
	}
	defer file.Close()
	var end int64
	if source != "" {
		if end, err = expand(source, file); err != nil {
			return err
		}
		if err := writeParameters(file, parameters); err != nil {
			return err
		}
	}
	if size == 0 {
		size = end
	}
	if size < end || size == 0 {
		return fmt.Errorf("a size of %d bytes is too small, the boot disk has %d", size, end)
	}
	if err := file.Truncate(size); err != nil {
		return err
	}
	if err := file.Sync(); err != nil {
		return err
	}
	log.Printf("%s: %d bytes", target, size)
	return os.Rename(partial, target)
}

// expand writes the compressed image and leaves holes where it is zero; it answers with the image's size.
func expand(source string, file *os.File) (int64, error) {
	packed, err := os.Open(source)
	if err != nil {
		return 0, err
	}
	defer packed.Close()
	image, err := gzip.NewReader(packed)
	if err != nil {
		return 0, err
	}
	zero := make([]byte, block)
	content := make([]byte, block)
	for offset := int64(0); ; {
		n, err := io.ReadFull(image, content)
		if n > 0 && !bytes.Equal(content[:n], zero[:n]) {
			if _, err := file.WriteAt(content[:n], offset); err != nil {
				return 0, err
			}
		}
		offset += int64(n)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return offset, nil
		}
		if err != nil {
			return 0, err
		}
	}
}

func writeParameters(file *os.File, parameters string) error {
	if len(parameters) >= parameterSize {
		return fmt.Errorf("parameters of %d bytes, at most %d fit", len(parameters), parameterSize-1)
	}
	sector := make([]byte, parameterSize)
	copy(sector, parameters+"\n")
	_, err := file.WriteAt(sector, parameterOffset)
	return err
}
