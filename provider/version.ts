/** The version of this package. */

import { createRequire } from "node:module";

/** As package.json has it: `0.1.0`. */
export const version: string = (
  createRequire(__filename)("pulumi-microvm/package.json") as { readonly version: string }
).version;
