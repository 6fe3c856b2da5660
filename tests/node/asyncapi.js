// Reads an AsyncAPI document by the project's own parser and prints what that says of it, as JSON.
import { readFileSync } from "node:fs";

import { Parser } from "@asyncapi/parser";

const { document, diagnostics } = await new Parser().parse(readFileSync(process.argv[2], "utf8"));
console.log(
  JSON.stringify({
    version: document?.version(),
    operations: document?.operations().all().map((each) => each.id()) ?? [],
    diagnostics,
  }),
);
