// Command writer is what runs in the test guest: the ordered sequence, and random changes around it.
//
// It writes n to a file on the first disk, makes that durable, writes n to a file on the second disk, makes
// that durable, and so on over all disks in the order given, then goes on with n+1. At any one moment no disk is
// ahead of an earlier one, and none is more than one step behind.
package main

import (
	"flag"
	"fmt"
	"log"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// idleSteps is how far the sequence of an idle guest goes: enough for a judge to read.
const idleSteps = 8

func main() {
	log.SetFlags(0)
	log.SetPrefix("coeval-guest: ")
	mounts := flag.String("mounts", "/disks", "folder with one mounted file system per disk")
	rate := flag.Float64("rate", 20, "steps per second, at most")
	idle := flag.Bool("idle", false, "write a short sequence once, then nothing")
	flag.Parse()
	if err := run(*mounts, flag.Args(), *rate, *idle); err != nil {
		log.Fatal(err)
	}
}

func run(mounts string, disks []string, rate float64, idle bool) error {
	var sequences []*sequence
	var churns []*churn
	for _, disk := range disks {
		s, err := openSequence(disk, filepath.Join(mounts, disk, "sequence"))
		if err != nil {
			return err
		}
		sequences = append(sequences, s)
		if !strings.HasPrefix(disk, "a") {
			continue
		}
		c, err := newChurn(filepath.Join(mounts, disk, "churn"))
		if err != nil {
			return err
		}
		churns = append(churns, c)
	}
	first, err := resume(sequences)
	if err != nil {
		return err
	}
	log.Printf("ready, disks in order %s, next step %d", strings.Join(disks, " "), first)

	var step atomic.Uint64
	go report(&step)
	pause := time.NewTicker(time.Duration(float64(time.Second) / rate))
	for n := first; !idle || n <= idleSteps; n++ {
		for _, s := range sequences {
			if s.last >= n {
				continue // the step that a power cut interrupted
			}
			if err := s.write(n); err != nil {
				return err
			}
		}
		step.Store(n)
		if !idle {
			for _, c := range churns {
				if err := c.change(); err != nil {
					return err
				}
			}
			<-pause.C
		}
	}
	log.Print("idle")
	select {}
}

// resume finds the step to go on with. Disks of different moments are an error: going on would hide it.
func resume(sequences []*sequence) (uint64, error) {
	var values []uint64
	var found []string
	for _, s := range sequences {
		values = append(values, s.last)
		found = append(found, fmt.Sprintf("%s=%d", s.disk, s.last))
	}
	descending := slices.IsSortedFunc(values, func(a, b uint64) int { return int(int64(b - a)) })
	if !descending || values[0]-values[len(values)-1] > 1 {
		return 0, fmt.Errorf("BROKEN, the disks are of different moments: %s", strings.Join(found, " "))
	}
	return values[len(values)-1] + 1, nil
}

// report says on the console once a second how far the sequence is, frozen or not.
func report(step *atomic.Uint64) {
	for range time.Tick(time.Second) {
		log.Printf("sequence %d", step.Load())
	}
}
