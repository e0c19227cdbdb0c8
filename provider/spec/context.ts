/** What is in the engine's property bags beside the program's inputs: who is asking, and what check derived before. */

import { z } from "zod";
import { MicroVmError } from "../errors.js";
import type { Values } from "../plan/fields.js";
import type { FactValues } from "../preflight/facts.js";
import type { Owner } from "../backends/backend.js";
import type { ResourceContext } from "./check.js";
import { derivedNames } from "./checked.js";
import { generatedName, rootDigest } from "./identity.js";
import { valueAt } from "./validate.js";

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
  const secret = news["secretInputs"];
  return {
    owner,
    createFirst: news["createFirst"] === true,
    secretInputs: new Set(Array.isArray(secret) ? secret.map(String) : []),
    generatedBefore: generatedBefore(olds),
  };
}

function generatedBefore(olds: Values): ResourceContext["generatedBefore"] {
  const { urn } = ownerOf(olds) ?? {};
  const { vmName } = olds;
  if (urn === undefined || typeof vmName !== "string") return undefined;
  const digest = rootDigest(olds);
  const isGenerated = vmName === generatedName(urn) || vmName === generatedName(urn, digest);
  return isGenerated ? { vmName, rootDigest: digest } : undefined;
}

/** The owner in checked inputs or news, if there is one. */
export function ownerOf(values: Values): Owner | undefined {
  const result = ownerSchema.safeParse(values["owner"]);
  return result.success ? result.data : undefined;
}

/**
 * What of the SDK's inputs goes into the checked ones. An alias, or a program that has moved, makes no new owner: the
 * one in the VM's record stays until the VM goes.
 */
export function contextInputs(olds: Values, news: Values): Values {
  return {
    owner: ownerOf(olds) ?? news["owner"],
    ...(news["createFirst"] === true ? { createFirst: true } : {}),
  };
}

/**
 * Digests that the engine fed back under `ignoreChanges`: those of the VM that exists. The SDK itself never sends any.
 */
export function keptDigests(olds: Values, news: Values): FactValues {
  const text = (name: keyof FactValues) => {
    const value = news[name];
    return typeof value === "string" && value === olds[name] ? value : undefined;
  };
  return {
    kernelSha256: text("kernelSha256"),
    initramfsSha256: text("initramfsSha256"),
    generatedInitramfs: text("generatedInitramfs"),
    rootfsDigest: text("rootfsDigest"),
  };
}

/** A text for the terminal without the values of secrets: a message about a file has its path in it. */
export function withoutSecrets(text: string, inputs: Values, secret: ReadonlySet<string>): string {
  return [...secret].reduce((shown, name) => {
    const given = inputs[name];
    const value = name === "backend" ? valueAt(given, ["token"]) : given;
    return typeof value === "string" && value !== "" ? shown.replaceAll(value, "[secret]") : shown;
  }, text);
}
