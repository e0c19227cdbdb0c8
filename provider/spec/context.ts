/** What is in the engine's property bags beside the program's inputs: who is asking, and what check derived before. */

import { z } from "zod";
import { MicroVmError } from "../errors.js";
import type { FactValues } from "../preflight/facts.js";
import type { Owner } from "../backends/backend.js";
import type { ResourceContext } from "./check.js";
import { derivedNames } from "./checked.js";
import { generatedName } from "./identity.js";
import { isInputName, UNKNOWN } from "./validate.js";

type Values = Readonly<Record<string, unknown>>;

/** Inputs that the SDK writes. `__provider` is the engine's own. */
const contextNames = ["owner", "createFirst", "secretInputs", "__provider"] as const;

const ownerSchema = z.object({ organization: z.string(), urn: z.string(), program: z.string() });

const notThePrograms: ReadonlySet<string> = new Set([...contextNames, ...derivedNames]);

/** The program's own inputs among the news of check. */
export function programInputs(news: Values): Values {
  return Object.fromEntries(Object.entries(news).filter(([name]) => !notThePrograms.has(name)));
}

/**
 * Who is asking.
 *
 * @throws MicroVmError `invalid-input` when the inputs do not come from this package's SDK.
 */
export function contextOf(olds: Values, news: Values): ResourceContext {
  const owner = ownerOf(news);
  if (owner === undefined) {
    throw new MicroVmError("invalid-input", "expected the SDK's MicroVm class to name the resource", {
      input: "owner",
    });
  }
  const before = ownerOf(olds);
  const wasGenerated = before !== undefined && olds["vmName"] === generatedName(before.urn);
  const secret = news["secretInputs"];
  return {
    owner,
    createFirst: news["createFirst"] === true,
    secretInputs: new Set(Array.isArray(secret) ? secret.map(String) : []),
    keptName: wasGenerated ? String(olds["vmName"]) : undefined,
  };
}

/** The owner in checked inputs or news, if there is one. */
export function ownerOf(values: Values): Owner | undefined {
  const result = ownerSchema.safeParse(values["owner"]);
  return result.success ? result.data : undefined;
}

/** What of the SDK's inputs goes into the checked ones. */
export function contextInputs(news: Values): Values {
  return {
    owner: news["owner"],
    ...(news["createFirst"] === true ? { createFirst: true } : {}),
  };
}

/** Digests that the engine fed back under `ignoreChanges`. The SDK itself never sends any. */
export function keptDigests(news: Values): FactValues {
  const text = (name: keyof FactValues) => {
    const value = news[name];
    return typeof value === "string" && value !== UNKNOWN ? value : undefined;
  };
  return {
    kernelSha256: text("kernelSha256"),
    initramfsSha256: text("initramfsSha256"),
    generatedInitramfs: text("generatedInitramfs"),
    rootfsDigest: text("rootfsDigest"),
  };
}

/** The checked inputs within a resource's outputs. */
export function inputsOf(outputs: Values): Values {
  const derived: ReadonlySet<string> = new Set(derivedNames);
  const kept = Object.entries(outputs).filter(
    ([name]) => isInputName(name) || derived.has(name) || name === "owner" || name === "createFirst",
  );
  return Object.fromEntries(kept);
}
