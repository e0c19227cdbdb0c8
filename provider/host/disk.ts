/** Stateful disks: sparse raw images with an ext4 file system. */

/**
 * Makes a sparse ext4 image. The file appears under its name only when it is complete.
 *
 * @param path Absolute; must not exist.
 * @param sizeMiB At least 1.
 * @throws MicroVmError `host-unusable` without mkfs.ext4, `state-directory` when the file system is full or read-only.
 */
export async function makeStatefulDisk(path: string, sizeMiB: number): Promise<void> {
  throw new Error("not written yet", { cause: [path, sizeMiB] });
}

/**
 * Makes the image of a stateful disk larger (sparse). The ext4 in it grows at the guest's next start. Idempotent.
 *
 * @throws MicroVmError `invalid-input` when the image is larger already: a disk never shrinks.
 */
export async function growDisk(path: string, sizeMiB: number): Promise<void> {
  throw new Error("not written yet", { cause: [path, sizeMiB] });
}
