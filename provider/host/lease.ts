/** Host-wide leases: what two VMs of this user cannot both have, whatever state directories they are in. */

/** A port of this host. */
export interface PortLease {
  readonly protocol: "tcp" | "udp";
  /** IPv4 address that listens; `0.0.0.0` stands for every address, and conflicts with each. */
  readonly address: string;
  /** 1 to 65535. */
  readonly port: number;
}

/** Who has a lease. It holds for as long as the record of that instance exists. */
export interface LeaseHolder {
  readonly stateDirectory: string;
  readonly vmName: string;
  readonly instance: string;
}

/**
 * Takes a port for an instance whose name is claimed. Taking again what the instance has succeeds. A lease of
 * which the record is gone is taken over.
 *
 * @throws MicroVmError `port-taken` when another VM has it (says which) or another program listens there.
 */
export async function takeLease(
  lease: PortLease,
  holder: LeaseHolder,
  env: NodeJS.ProcessEnv = process.env,
): Promise<void> {
  throw new Error("not written yet", { cause: [lease, holder, env] });
}

/** Gives one lease back, if the instance has it. */
export async function releaseLease(
  lease: PortLease,
  instance: string,
  env: NodeJS.ProcessEnv = process.env,
): Promise<void> {
  throw new Error("not written yet", { cause: [lease, instance, env] });
}

/** Gives back all that the instance has. Idempotent. */
export async function releaseLeases(instance: string, env: NodeJS.ProcessEnv = process.env): Promise<void> {
  throw new Error("not written yet", { cause: [instance, env] });
}
