/**
 * Scores with the generated types: the example of the README, and a batch written with them.
 *
 * In: the address of a running server. Out: nothing; a wrong reward ends the program with an error.
 */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";

import createClient from "openapi-fetch";

import type { components, paths } from "./schema.js";

type RewardRequest = components["schemas"]["RewardRequest"];
type Trajectory = components["schemas"]["Trajectory"];

const address = process.argv[2];
assert(address, "give the address of a running server");
const client = createClient<paths>({ baseUrl: address });
const example = new URL("../../../../tests/cases/trajectories/hermes_trailing_comma.json", import.meta.url);

async function score(body: RewardRequest) {
    const { data, error } = await client.POST("/reward", { body });
    assert(data, `refused: ${error?.detail}`);
    return data;
}

function answer(text: string): Trajectory {
    return {
        messages: [
            { role: "user", content: "Capital of France?" },
            {
                role: "assistant",
                content: [{ type: "text", text: "I look it up." }],
                tool_calls: [{ id: "c1", type: "function", function: { name: "search", arguments: { query: "capital" } } }],
            },
            { role: "tool", content: "Paris" },
            { role: "assistant", content: `<answer>${text}</answer>` },
        ],
        tools: [{ type: "function", function: { name: "search", parameters: { type: "object" } } }],
        references: ["Paris"],
        metadata: { row: 7, split: { name: "train" } },
    };
}

const readme = await score(JSON.parse(await readFile(example, "utf8")) as RewardRequest);
assert.deepEqual(readme.rewards, [0.05]);
assert.equal(readme.results[0]?.failed_stage, "tool_parse");
assert.deepEqual(readme.results[0]?.tool_calls.map((call) => call.parsed), [false, true]);
assert.equal(readme.results[0]?.answer.text, "DHL");

const scored = await score({ trajectories: [answer("Paris"), answer("Rome"), {}], on_invalid: "null" });
assert.equal(scored.rewards[0], 1);
assert.deepEqual(scored.results[0]?.tool_calls.map((call) => call.arguments), [{ query: "capital" }]);
assert((scored.rewards[1] ?? 1) < 0.5);
assert.equal(scored.rewards[2], null);
assert.equal(scored.results[2]?.errors[0]?.code, "item_malformed");

const refused = await client.POST("/reward", { body: { trajectories: [], rubric: "no_such_rubric" } });
assert.equal(refused.response.status, 404);
assert.equal(refused.error?.pointer, "/rubric");
console.log("typescript: the rewards are right");
