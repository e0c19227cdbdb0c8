/** The same work for many VMs, of which so many at a time. */

/**
 * Does the work for each name. The first error is thrown at once; what is under way goes on.
 *
 * @param limit How many at a time.
 */
export async function forEachAtOnce(
  names: readonly string[],
  limit: number,
  work: (vmName: string) => Promise<void>,
): Promise<void> {
  const waiting = [...names];
  const worker = async (): Promise<void> => {
    for (let vmName = waiting.shift(); vmName !== undefined; vmName = waiting.shift()) await work(vmName);
  };
  await Promise.all(Array.from({ length: limit }, worker));
}
