/**
 * Whether the engine's state holds an instance. The Pulumi program's own process imports this: it loads nothing but
 * Node's modules.
 */

/**
 * Says that the engine's state holds this instance, so that no later create reclaims it. Idempotent; no effect on another instance.
 *
 * @returns Whether that instance is there and now confirmed.
 */
export async function confirm(stateDirectory: string, vmName: string, instance: string): Promise<boolean> {
  throw new Error("not written yet", { cause: [stateDirectory, vmName, instance] });
}

/** Whether the instance has been confirmed. */
export async function isConfirmed(
  stateDirectory: string,
  vmName: string,
  instance: string,
): Promise<boolean> {
  throw new Error("not written yet", { cause: [stateDirectory, vmName, instance] });
}
