// Package libnbd stands in for the Go binding of libnbd, which the module proxy refuses.
//
// virt-launcher uses the binding in one place only: its client for pull-mode backups. Everything
// else builds and runs without it, so every call here fails and says why. The names and shapes are
// those that kubevirt.io/kubevirt v1.8.4 compiles against.
package libnbd

import "errors"

const (
	CONTEXT_BASE_ALLOCATION   = "base:allocation"
	CONTEXT_QEMU_DIRTY_BITMAP = "qemu:dirty-bitmap:"
)

const (
	STATE_HOLE  uint32 = 1
	STATE_ZERO  uint32 = 2
	STATE_DIRTY uint32 = 1
)

var errNotBuilt = errors.New("pull-mode backup is not part of this build: libnbd is a stub")

type LibnbdExtent struct{ Length, Flags uint64 }

type ExtentCallback func(metacontext string, offset uint64, entries []LibnbdExtent, error *int) int

type Libnbd struct{}

func Create() (*Libnbd, error) { return nil, errNotBuilt }

func (*Libnbd) Close() error                                            { return nil }
func (*Libnbd) AddMetaContext(string) error                             { return errNotBuilt }
func (*Libnbd) CanMetaContext(string) (bool, error)                     { return false, errNotBuilt }
func (*Libnbd) ConnectUnix(string) error                                { return errNotBuilt }
func (*Libnbd) GetSize() (uint64, error)                                { return 0, errNotBuilt }
func (*Libnbd) Pread([]byte, uint64, any) error                         { return errNotBuilt }
func (*Libnbd) SetExportName(string) error                              { return errNotBuilt }
func (*Libnbd) BlockStatus64(uint64, uint64, ExtentCallback, any) error { return errNotBuilt }
