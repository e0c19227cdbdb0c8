/** Arrakis' config.yaml, as a user of it has it. */

/**
 * The file as Arrakis ships it.
 *
 * @param more Lines at the end of `hostservices.restserver`, without their indentation.
 */
export function arrakisConfig(more: readonly string[] = []): string {
  return `hostservices:
  restserver:
    host: "0.0.0.0"
    port: "7000"
    state_dir: "./vm-state"
    bridge_name: "br0"
    bridge_ip: "10.20.1.1/24"
    bridge_subnet: "10.20.1.0/24"
    chv_bin: "./resources/bin/cloud-hypervisor"
    kernel: "./resources/bin/vmlinux.bin"
    rootfs: "./out/arrakis-guestrootfs-ext4.img"
    initramfs: "./out/initramfs.cpio.gz"
    port_forwards:
      - port: "5901"
        description: "gui"
      - port: "5736-5740"
        description: "code"
    stateful_size_in_mb: "2048"
    guest_mem_percentage: "30"
${more.map((line) => `    ${line}\n`).join("")}  client:
    server_host: "127.0.0.1"
    server_port: "7000"
guestservices:
  codeserver:
    port: "4030"
  cmdserver:
    port: "4031"
`;
}

/** The four lines of the seed's document that make an NFS root the default. */
export const SEED_NFS_LINES = [
  "nfs_enabled: true",
  'nfs_server: "127.0.0.1"',
  "nfs_port: 11111",
  'nfs_path: "/"',
] as const;
