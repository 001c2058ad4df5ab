#!/bin/sh
# Makes the boot disk of the test guest in the current folder, inside the Debian root of packages.txt:
#   disk.sh FILES MEBIBYTES
# The root's shell is busybox, which prefers its own programs; those that must be others have their full path.
# FILES holds init and writer; the result is disk.img: boot record, parameter sector, a FAT partition with
# syslinux, kernel and initrd, an ext4 partition for the guest's first disk.
set -eu
files=$1 size=$2
kernel=$(basename /usr/lib/modules/*)
boot_start=1 boot_size=48
data_start=$((boot_start + boot_size))

initrd() {
	mkdir -p initrd/bin initrd/usr/sbin initrd/etc initrd/modules initrd/proc initrd/sys initrd/dev initrd/run
	cp /bin/busybox "$files/writer" initrd/bin/
	cp "$files/init" initrd/init
	chmod 755 initrd/init initrd/bin/writer
	for program in /usr/sbin/qemu-ga /usr/sbin/mke2fs; do
		cp "$program" initrd/usr/sbin/
		/lib64/ld-linux-x86-64.so.2 --list "$program" | sed -n 's/.*[ \t]\(\/[^ ]*\) (0x.*/\1/p' |
			while read -r library; do
				mkdir -p "initrd/$(dirname "$library")"
				cp -L "$library" "initrd/$library"
			done
	done
	cp /etc/mke2fs.conf initrd/etc/
	printf 'ID=coeval-guest\nNAME="Coeval test guest"\nPRETTY_NAME="Coeval test guest"\nVERSION_ID=1\n' >initrd/etc/os-release
	modules
	(cd initrd && find . | LC_ALL=C sort | cpio --quiet -o -H newc | gzip -n -9) >initrd.gz
	rm -r initrd
}

# The drivers that the kernel does not have built in, each after those that it needs.
modules() {
	/usr/sbin/depmod "$kernel"
	for name in virtio_blk virtio_scsi sd_mod virtio_console virtio_pci ext4; do
		/usr/sbin/modprobe -S "$kernel" --show-depends "$name"
	done | sed -n 's/^insmod //p' | awk '!seen[$1]++ { print $1 }' | while read -r path; do
		name=$(basename "$path" .xz)
		xz -dc "$path" >"initrd/modules/$name"
		echo "$name" >>initrd/modules/order
	done
	grep -q virtio_blk initrd/modules/order # a pipe hides what fails at its start
}

boot_partition() {
	truncate -s ${boot_size}M boot.img
	mkfs.vfat -n COEVALBOOT boot.img >/dev/null
	printf 'DEFAULT coeval\nPROMPT 0\nLABEL coeval\n  KERNEL vmlinuz\n  INITRD initrd.gz\n  APPEND %s\n' \
		'console=ttyS0 quiet panic=-1 mitigations=off' >syslinux.cfg
	mcopy -i boot.img syslinux.cfg initrd.gz ::
	mcopy -i boot.img "/boot/vmlinuz-$kernel" ::vmlinuz
	syslinux --install boot.img
}

partitions() {
	truncate -s "${size}M" disk.img
	sfdisk --quiet disk.img <<-END
		label: dos
		start=${boot_start}MiB, size=${boot_size}MiB, type=c, bootable
		start=${data_start}MiB, type=83
	END
	dd if=/usr/lib/SYSLINUX/mbr.bin of=disk.img bs=440 count=1 conv=notrunc status=none
	/usr/bin/dd if=boot.img of=disk.img bs=1M seek=$boot_start conv=notrunc,sparse status=none
	/usr/sbin/mke2fs -q -t ext4 -L a0 -E "offset=$((data_start << 20)),lazy_itable_init=0,lazy_journal_init=0" \
		disk.img $(((size - data_start) * 1024))
	rm boot.img syslinux.cfg
}

initrd
boot_partition
partitions
