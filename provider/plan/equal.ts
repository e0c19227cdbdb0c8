/** Whether two values of the engine's property bags are the same. Pure. */

import { isDeepStrictEqual } from "node:util";

/** Whether two values are the same; an absent one is `undefined` or `null`. */
export function isEqual(one: unknown, other: unknown): boolean {
  return isDeepStrictEqual(plain(one), plain(other));
}

/** Without the prototypes and absent properties that a value has picked up on its way through the engine. */
function plain(value: unknown): unknown {
  return value === undefined || value === null ? undefined : JSON.parse(JSON.stringify(value));
}
