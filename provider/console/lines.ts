/** Tells the kernel's own console lines from what user space prints. */

/** One console line, taken apart. */
export interface ConsoleLine {
  /** What the kernel said, without its time stamp; absent when the line holds no kernel message. */
  readonly kernel?: string;
  /** What stands before the kernel's message, or the whole line: user space's words. */
  readonly user: string;
}

// printk_time, then the caller of CONFIG_PRINTK_CALLER (Documentation/admin-guide/kernel-parameters.txt, printk.time).
const STAMP = /\[ *\d+\.\d{6}\](?:\[ *[TC]\d+\])? /;

/**
 * Takes a line apart at the kernel's time stamp, which may stand in the middle: the kernel writes at once, even into a
 * line that user space has begun.
 */
export function splitLine(line: string): ConsoleLine {
  const stamp = STAMP.exec(line);
  if (stamp === null) return { user: line };
  return { user: line.slice(0, stamp.index), kernel: line.slice(stamp.index + stamp[0].length) };
}

/**
 * Whether a kernel message repeats the command line (or its unknown words), so that it can hold anything that a person wrote
 * there. Not anchored at the start: a serial line loses characters when the reader of the other end is slow.
 */
export function echoesCommandLine(kernel: string): boolean {
  return /command line(?:: | parameters )/i.test(kernel.slice(0, 48));
}
