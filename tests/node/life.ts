// The whole life of a device, by the types that openapi-typescript makes of the document. The test writes them to
// api.d.ts beside this file, compiles with `tsc --strict` and runs it: node life.js URL KEY
import assert from "node:assert/strict";
import { createHash, createHmac } from "node:crypto";

import createClient from "openapi-fetch";

import type { components, paths } from "./api.js";

type Schemas = components["schemas"];

const [url, key] = process.argv.slice(2) as [string, string];
const options = (token: string) => ({ baseUrl: url, headers: { Authorization: `Bearer ${token}` } });
// Lists come as CSV, too. This client takes the JSON of each answer, as it does when it is not asked for anything else.
const as = (token: string) => createClient<paths, "application/json">(options(token));

function good<T>(answer: { data?: T; error?: unknown }): T {
  if (answer.data === undefined) throw new Error(JSON.stringify(answer.error));
  return answer.data;
}

/** What only the holder of the token can make. */
function receipt(token: string, command: Schemas["CommandPayload"], status: string): string {
  const message = `${command.id}|${status}|${command.binding_generation}`;
  return createHmac("sha256", createHash("sha256").update(token).digest()).update(message).digest("base64url");
}

const backEnd = as(key);
const device = good(await backEnd.POST("/v1/devices", { body: { serial_number: "GEN-2" } }));
const path = { device_id: device.id };
assert.equal(device.recording_state, null);
assert.equal(device.settings.audio.bitrate_kbps, 32);
assert.equal(device.settings.upload.off_peak_hours, null);
const changed = good(
  await backEnd.PATCH("/v1/devices/{device_id}", {
    params: { path },
    body: { settings: { upload: { off_peak_hours: { start: "22:00", end: "06:00", timezone: "Europe/Berlin" } } } },
  }),
);
assert.equal(changed.settings.upload.off_peak_hours?.enabled, true);

const bound = good(
  await backEnd.POST("/v1/devices/{device_id}/bind", { params: { path }, body: { end_user_id: "eu_42" } }),
);
const own = as(bound.device_token);
const me = { device_id: "me" };
good(
  await own.POST("/v1/devices/{device_id}/heartbeat", {
    params: { path: me },
    body: { battery_percent: 81, device_state: "idle", connection_type: ["wifi"] },
  }),
);
const state = good(await backEnd.GET("/v1/devices/{device_id}/state", { params: { path } }));
assert.deepEqual(state.recording_state?.connection_type, ["wifi"]);

const command = good(
  await backEnd.POST("/v1/devices/{device_id}/commands", { params: { path }, body: { type: "start_recording" } }),
);
const cancelled = good(
  await backEnd.DELETE("/v1/devices/{device_id}/commands/{command_id}", {
    params: { path: { ...path, command_id: command.id } },
  }),
);
assert.equal(cancelled.status, "cancelled");

good(await backEnd.POST("/v1/devices/{device_id}/reset", { params: { path } }));
const waiting = await own.GET("/v1/devices/{device_id}/commands/pending", { params: { path: me } });
assert.equal(waiting.error?.error.code, "unauthorized"); // its token opens the reset alone, which a heartbeat hands over
const [open] = good(await own.POST("/v1/devices/{device_id}/heartbeat", { params: { path: me } })).commands ?? [];
assert(open);
for (const status of ["delivered", "executed"] as const) {
  good(
    await own.POST("/v1/devices/{device_id}/commands/{command_id}/ack", {
      params: { path: { ...me, command_id: open.id } },
      body: { status, receipt: receipt(bound.device_token, open, status) },
    }),
  );
}
const done = good(
  await backEnd.GET("/v1/devices/{device_id}/commands/{command_id}", {
    params: { path: { ...path, command_id: open.id } },
  }),
);
assert.equal(done.status, "executed");
const events = good(await backEnd.GET("/v1/devices/{device_id}/events", { params: { path } })).data;
assert(events.some((each) => each.type === "reset.completed"));

good(await backEnd.DELETE("/v1/devices/{device_id}", { params: { path } }));
const gone = await backEnd.GET("/v1/devices/{device_id}", { params: { path } });
assert.equal(gone.error?.error.code, "not_found");
good(await backEnd.POST("/v1/devices/{device_id}/restore", { params: { path } }));
const query = { sort: "serial_number", total: true } as const;
const page = good(await backEnd.GET("/v1/devices", { params: { query } }));
assert.deepEqual([page.data.map((each) => each.id), page.total, page.next_cursor], [[device.id], 1, null]);
const figures: string = good(await createClient<paths>(options(key)).GET("/metrics", { parseAs: "text" }));
assert.match(figures, /gateway_/);
console.log("lived");
