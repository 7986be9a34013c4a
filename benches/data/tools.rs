//! The pool of tools. In: choices; out: definitions with real schemas, arguments that satisfy them, and arguments that do
//! not. The first five take flat arguments.

use serde_json::{Map, Value, json};

use super::random::Random;
use super::words::{name, place, prose, word};

/// How many tools of [`POOL`] take flat arguments; they come first.
pub const FLAT: usize = 5;

/// A tool.
#[derive(Clone, Copy)]
pub struct Tool {
    /// Its name.
    pub name: &'static str,
    /// What it does.
    pub description: &'static str,
    /// The schema of its arguments.
    pub parameters: fn() -> Value,
    /// Arguments that satisfy it.
    pub arguments: fn(&mut Random) -> Value,
}

impl Tool {
    /// Its entry in a list of tools.
    pub fn entry(self) -> Value {
        let function = json!({"name": self.name, "description": self.description, "parameters": (self.parameters)()});
        json!({"type": "function", "function": function})
    }
}

/// Every tool.
pub const POOL: [Tool; 15] = [
    Tool {
        name: "get_weather",
        description: "Current weather for a place.",
        parameters: weather,
        arguments: |r| json!({"location": place(r), "unit": r.pick(&["celsius", "fahrenheit"])}),
    },
    Tool {
        name: "web_search",
        description: "Search the web.",
        parameters: search,
        arguments: |r| json!({"query": prose(r, 7), "top_k": 1 + r.below(50), "lang": r.pick(&["en", "de", "ja"])}),
    },
    Tool {
        name: "calculator",
        description: "Evaluate an arithmetic expression.",
        parameters: calculator,
        arguments: |r| json!({"expression": format!("({} + {:.2}) * {} / 7", r.below(999), r.unit() * 9.0, r.below(99))}),
    },
    Tool {
        name: "run_python",
        description: "Run a Python snippet and return its output.",
        parameters: python,
        arguments: |r| json!({"code": snippet(r), "timeout_s": r.pick(&[5.0, 10.0, 30.5])}),
    },
    Tool {
        name: "read_file",
        description: "Read lines of a file.",
        parameters: file,
        arguments: |r| json!({"path": format!("src/{}/{}.py", word(r), word(r)), "start": 1 + r.below(80), "end": 81 + r.below(300)}),
    },
    Tool {
        name: "sql_query",
        description: "Run a read-only SQL query.",
        parameters: sql,
        arguments: |r| json!({"database": r.pick(&["orders", "users"]), "query": format!("SELECT {}, COUNT(*) FROM {} WHERE total > ? GROUP BY 1", word(r), word(r)), "params": [r.below(500), word(r), null]}),
    },
    Tool {
        name: "create_order",
        description: "Create an order for a customer.",
        parameters: order,
        arguments: order_arguments,
    },
    Tool {
        name: "create_event",
        description: "Put an event in the calendar.",
        parameters: event,
        arguments: event_arguments,
    },
    Tool {
        name: "http_request",
        description: "Send an HTTP request.",
        parameters: http,
        arguments: |r| json!({"method": r.pick(&["GET", "POST"]), "url": format!("https://api.example.org/v1/{}?id={}", word(r), r.below(9999)), "headers": {"Accept": "application/json"}, "body": {"text": prose(r, 12)}}),
    },
    Tool {
        name: "update_records",
        description: "Update the records that match a condition.",
        parameters: records,
        arguments: |r| json!({"table": word(r), "where": condition(r, 2), "set": {"by": name(r), "count": r.below(99)}}),
    },
    Tool { name: "plot_chart", description: "Draw a chart.", parameters: chart, arguments: chart_arguments },
    Tool {
        name: "send_message",
        description: "Send a message to people.",
        parameters: message,
        arguments: |r| json!({"to": [email(r), "+4915112345678"], "body": prose(r, 30), "priority": r.pick(&["low", "high"])}),
    },
    Tool {
        name: "translate",
        description: "Translate a text.",
        parameters: translate,
        arguments: |r| json!({"text": prose(r, 20), "target": r.pick(&["de", "fr", "ja"]), "formal": true}),
    },
    Tool {
        name: "list_flights",
        description: "List flights between two airports.",
        parameters: flights,
        arguments: |r| json!({"from": "LIS", "to": r.pick(&["KIX", "NBO", "HAN"]), "date": "2025-04-17", "passengers": {"adults": 1 + r.below(4), "children": r.below(3)}}),
    },
    Tool {
        name: "edit_file",
        description: "Replace pieces of a file.",
        parameters: edit,
        arguments: |r| json!({"path": format!("src/{}.rs", word(r)), "edits": [{"old": prose(r, 9), "new": prose(r, 9)}, {"old": word(r), "new": word(r), "all": true}]}),
    },
];

/// Changes arguments so that they no longer satisfy their schema: every tool of the pool requires its first member.
pub fn break_arguments(random: &mut Random, arguments: &mut Value) {
    let Value::Object(members) = arguments else { return };
    let wrong = json!({"unexpected": [1]});
    for required in [
        "location",
        "query",
        "expression",
        "code",
        "path",
        "database",
        "customer_id",
        "title",
        "method",
        "table",
        "kind",
        "to",
        "text",
        "from",
    ] {
        if !members.contains_key(required) {
            continue;
        }
        if random.below(2) == 0 {
            members.remove(required);
        } else {
            members.insert(required.to_owned(), wrong);
        }
        return;
    }
}

fn object(properties: Value, required: &[&str]) -> Value {
    let mut schema = json!({"type": "object", "required": required, "additionalProperties": false});
    schema["properties"] = properties;
    schema
}

fn string() -> Value {
    json!({"type": "string"})
}

fn pattern(pattern: &str) -> Value {
    json!({"type": "string", "pattern": pattern})
}

fn weather() -> Value {
    object(json!({"location": string(), "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]}}), &["location"])
}

fn search() -> Value {
    let query = json!({"type": "string", "minLength": 3, "maxLength": 300});
    let top_k = json!({"type": "integer", "minimum": 1, "maximum": 50});
    object(
        json!({"query": query, "top_k": top_k, "lang": {"type": "string", "enum": ["en", "de", "fr", "ja"]}}),
        &["query"],
    )
}

fn calculator() -> Value {
    object(json!({"expression": pattern("^[0-9+*/(). -]+$")}), &["expression"])
}

fn python() -> Value {
    let timeout = json!({"type": "number", "exclusiveMinimum": 0, "maximum": 120});
    object(json!({"code": {"type": "string", "minLength": 1}, "timeout_s": timeout}), &["code"])
}

fn snippet(random: &mut Random) -> String {
    let line = |index: usize| format!("{}_{index} = math.sqrt({})\n", word(random), random.below(9999));
    let lines: String = (0..4).map(line).collect();
    format!("import math\n{lines}print(\"done\")")
}

fn file() -> Value {
    let line = json!({"type": "integer", "minimum": 1});
    object(json!({"path": pattern("^[A-Za-z0-9_./-]+$"), "start": line, "end": line}), &["path"])
}

fn sql() -> Value {
    let parameter = json!({"anyOf": [string(), {"type": "number"}, {"type": "null"}]});
    let parameters = json!({"type": "array", "items": parameter, "maxItems": 20});
    let database = json!({"type": "string", "enum": ["orders", "users", "events"]});
    object(
        json!({"database": database, "query": pattern("^(SELECT|WITH) "), "params": parameters}),
        &["database", "query"],
    )
}

fn order() -> Value {
    let options = json!({"type": "object", "additionalProperties": string()});
    let quantity = json!({"type": "integer", "minimum": 1, "maximum": 100});
    let sku = pattern("^[A-Z]{3}-[0-9]{4}$");
    let item = object(json!({"sku": sku, "quantity": quantity, "options": options}), &["sku", "quantity"]);
    let address =
        object(json!({"street": string(), "city": string(), "zip": pattern("^[0-9]{5}$")}), &["street", "city"]);
    let shipping = json!({"oneOf": [
        object(json!({"type": {"const": "pickup"}, "store_id": {"type": "integer"}}), &["type", "store_id"]),
        object(json!({"type": {"const": "delivery"}, "express": {"type": "boolean"}, "address": address}), &["type", "address"]),
    ]});
    let items = json!({"type": "array", "minItems": 1, "items": item});
    let customer = pattern("^C-[0-9]{6}$");
    object(
        json!({"customer_id": customer, "items": items, "shipping": shipping}),
        &["customer_id", "items", "shipping"],
    )
}

fn order_arguments(random: &mut Random) -> Value {
    let item = |random: &mut Random| {
        let sku = format!("ABC-{:04}", random.below(10_000));
        json!({"sku": sku, "quantity": 1 + random.below(100), "options": {"colour": "red", "note": prose(random, 4)}})
    };
    let items: Vec<Value> = (0..=random.below(4)).map(|_| item(random)).collect();
    let address = json!({"street": "7 harbour street", "city": place(random), "zip": "12345"});
    let shipping = match random.below(2) {
        0 => json!({"type": "pickup", "store_id": random.below(500)}),
        _ => json!({"type": "delivery", "express": true, "address": address}),
    };
    json!({"customer_id": format!("C-{:06}", random.below(1_000_000)), "items": items, "shipping": shipping})
}

fn event() -> Value {
    let stamp = pattern("^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}$");
    let role = json!({"enum": ["required", "optional", "chair"]});
    let attendee = object(json!({"email": email_schema(), "role": role}), &["email"]);
    let every = object(
        json!({"freq": {"enum": ["daily", "weekly"]}, "interval": {"type": "integer", "minimum": 1}}),
        &["freq"],
    );
    let properties = json!({
        "title": {"type": "string", "minLength": 1, "maxLength": 120}, "start": stamp, "end": stamp,
        "attendees": {"type": "array", "uniqueItems": true, "items": attendee},
        "recurrence": {"oneOf": [{"type": "null"}, every]},
        "reminders": {"type": "array", "items": {"type": "integer", "minimum": 0}, "maxItems": 5},
    });
    object(properties, &["title", "start", "end"])
}

fn event_arguments(random: &mut Random) -> Value {
    let attendee = |index: usize| json!({"email": format!("u{index}.{}", email(random)), "role": "required"});
    let attendees: Vec<Value> = (0..3).map(attendee).collect();
    let (start, end) = ("2025-04-17T09:30", "2025-04-17T10:15");
    let recurrence = random.pick(&[0, 1]);
    let recurrence = if recurrence == 0 { Value::Null } else { json!({"freq": "weekly", "interval": 2}) };
    json!({"title": prose(random, 5), "start": start, "end": end, "attendees": attendees, "recurrence": recurrence, "reminders": [10]})
}

fn http() -> Value {
    let headers = json!({"type": "object", "additionalProperties": string()});
    let body = json!({"anyOf": [{"type": "object"}, string(), {"type": "null"}]});
    let method = json!({"enum": ["GET", "POST", "PUT", "DELETE"]});
    object(
        json!({"method": method, "url": pattern("^https?://"), "headers": headers, "body": body}),
        &["method", "url"],
    )
}

fn records() -> Value {
    let several = json!({"type": "array", "minItems": 2, "items": {"$ref": "#/$defs/condition"}});
    let value = json!({"type": ["string", "number", "array"]});
    let single = json!({"field": string(), "op": {"enum": ["eq", "ne", "lt", "gt", "in"]}, "value": value});
    let condition = json!({"oneOf": [
        object(single, &["field", "op", "value"]),
        object(json!({"and": several}), &["and"]),
        object(json!({"or": several}), &["or"]),
    ]});
    let properties = json!({"table": string(), "where": {"$ref": "#/$defs/condition"}, "set": {"type": "object", "minProperties": 1}});
    let mut schema = object(properties, &["table", "where", "set"]);
    schema["$defs"] = json!({"condition": condition});
    schema
}

fn condition(random: &mut Random, depth: usize) -> Value {
    if depth > 0 && random.below(2) == 0 {
        let key = random.pick(&["and", "or"]);
        let inner: Vec<Value> = (0..2 + random.below(2)).map(|_| condition(random, depth - 1)).collect();
        return Value::Object(Map::from_iter([(key.to_owned(), json!(inner))]));
    }
    json!({"field": word(random), "op": random.pick(&["eq", "ne", "lt"]), "value": random.below(1000)})
}

fn chart() -> Value {
    let point = json!({"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2});
    let series = object(json!({"name": string(), "points": {"type": "array", "items": point}}), &["name", "points"]);
    let axis = object(json!({"label": string(), "log": {"type": "boolean"}}), &["label"]);
    let axes = object(json!({"x": axis, "y": axis}), &["x", "y"]);
    let several = json!({"type": "array", "minItems": 1, "items": series});
    object(json!({"kind": {"enum": ["line", "bar", "scatter"]}, "series": several, "axes": axes}), &["kind", "series"])
}

fn chart_arguments(random: &mut Random) -> Value {
    let point = |index: usize| json!([index, random.below(9900) as f64 / 100.0]);
    let points: Vec<Value> = (0..8).map(point).collect();
    let axes = json!({"x": {"label": "time"}, "y": {"label": word(random), "log": false}});
    json!({"kind": random.pick(&["line", "bar"]), "series": [{"name": word(random), "points": points}], "axes": axes})
}

fn email_schema() -> Value {
    pattern(r"^[^@\s]+@[^@\s]+\.[a-z]{2,}$")
}

fn email(random: &mut Random) -> String {
    format!("{}.{}@example.org", word(random), word(random))
}

fn message() -> Value {
    let person = json!({"anyOf": [email_schema(), pattern(r"^\+[0-9]{7,15}$")]});
    let to = json!({"type": "array", "minItems": 1, "items": person});
    let body = json!({"type": "string", "maxLength": 2000});
    object(json!({"to": to, "body": body, "priority": {"enum": ["low", "normal", "high"]}}), &["to", "body"])
}

fn translate() -> Value {
    let target = pattern("^[a-z]{2}$");
    object(json!({"text": string(), "target": target, "formal": {"type": "boolean"}}), &["text", "target"])
}

fn flights() -> Value {
    let airport = pattern("^[A-Z]{3}$");
    let number = json!({"type": "integer", "minimum": 0, "maximum": 9});
    let passengers = object(json!({"adults": number, "children": number}), &["adults"]);
    let date = json!({"type": "string", "format": "date"});
    object(json!({"from": airport, "to": airport, "date": date, "passengers": passengers}), &["from", "to", "date"])
}

fn edit() -> Value {
    let one = object(json!({"old": string(), "new": string(), "all": {"type": "boolean"}}), &["old", "new"]);
    object(json!({"path": string(), "edits": {"type": "array", "minItems": 1, "items": one}}), &["path", "edits"])
}
