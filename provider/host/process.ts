/** Processes by identity: a pid alone may be another program's by now. */

/** A process that cannot be mistaken for a later one of the same pid. */
export interface ProcessIdentity {
  readonly pid: number;
  /** Start time in clock ticks since boot: field 22 of /proc/PID/stat (proc_pid_stat(5)). */
  readonly startTime: string;
  /** /proc/sys/kernel/random/boot_id when it ran. */
  readonly bootId: string;
}
