//! The jq engine in its cage: which functions exist, how a text becomes a program, how a program runs. The guards
//! that `rewrite` calls are defined here.

use std::panic::{AssertUnwindSafe, catch_unwind};

use jaq_core::box_iter::box_once;
use jaq_core::data::HasLut;
use jaq_core::load::lex::{Lexer, Token};
use jaq_core::load::parse::{BinaryOp, Expect};
use jaq_core::load::parse::{Def, Parser, Term};
use jaq_core::load::{Arena, File, Loader, lex};
use jaq_core::native::{Fun, bome, run as native, v};
use jaq_core::{Compiler, Ctx, Cv, DataT, Exn, Filter, Lut, Native, ValXs, Vars};
use jaq_json::{Num, Val};
use serde_json::Value;

use super::MappingError;
use super::limits::{Budget, Halt, Limits};
use super::rewrite::Rewrite;
use super::shape::Shape;
use super::value;

/// A mapping is a page at most; the parser's own recursion is bounded by this, too.
const MAX_TEXT_BYTES: usize = 16 * 1024;
/// Stack of the thread that compiles: the parser recurses once or more a character.
const COMPILE_STACK_BYTES: usize = 256 << 20;
/// Digits of a number, in bits: far beyond any amount of money, far below what takes time.
const MAX_NUMBER_BITS: u64 = 2048;
/// Length of a regular expression, with its counted repetitions written out.
const MAX_REGEX: u64 = 4096;
/// Digits in a row in a text that is read as JSON.
const MAX_DIGITS: usize = 400;

/// Native functions that look outside (clock, environment, time zone, log, exit): they do not exist here.
const FORBIDDEN: [&str; 8] =
    ["halt", "env", "now", "localtime", "strflocaltime", "debug_empty", "stderr_empty", "input"];
/// Definitions of the standard library that need one of them.
const FORBIDDEN_DEFS: [&str; 4] = ["halt", "halt_error", "stderr", "debug"];
/// The definition that holds the text of a mapping.
const MAIN: &str = "bcbridge_mapping";

/// A compiled program: no values in it, so it may be used by many threads at once.
pub(super) struct Program {
    filter: Filter<Jq>,
    /// How many variables it was compiled with: as many must be given to each run.
    variables: usize,
}

/// What a run sees.
pub(super) struct Given<'a> {
    /// `.`
    pub(super) input: &'a Value,
    /// The values of the variables, in the order of their names; those that are missing are null.
    pub(super) variables: &'a [Value],
}

/// What the engine's types depend on: our values, and the budget in the data of each run.
pub(super) struct Jq;

impl DataT for Jq {
    type V<'a> = Val;
    type Data<'a> = Data<'a>;
}

/// What every native function can reach.
#[derive(Clone, Copy)]
pub(super) struct Data<'a> {
    lut: &'a Lut<Jq>,
    budget: &'a Budget<'a>,
}

impl<'a> HasLut<'a, Jq> for Data<'a> {
    fn lut(&self) -> &'a Lut<Jq> {
        self.lut
    }
}

/// Compiles on a thread of its own with a large stack: a text of a thousand brackets must be an error, not the end
/// of the process.
pub(super) fn compile(text: &str, variables: &[&'static str]) -> Result<(Program, Shape), MappingError> {
    if text.len() > MAX_TEXT_BYTES {
        return Err(at(text, text, format!("expression longer than {MAX_TEXT_BYTES} bytes")));
    }
    std::thread::scope(|scope| {
        let thread =
            std::thread::Builder::new().name("jq-compile".to_owned()).stack_size(COMPILE_STACK_BYTES);
        let broken = |_| at(text, text, "expression cannot be compiled".to_owned());
        match thread.spawn_scoped(scope, || compile_here(text, variables)) {
            Ok(handle) => handle.join().unwrap_or_else(|panic| Err(broken(panic))),
            Err(error) => Err(at(text, text, format!("no thread to compile on: {error}"))),
        }
    })
}

fn compile_here(text: &str, variables: &[&'static str]) -> Result<(Program, Shape), MappingError> {
    let main = parse(text)?;
    let shape = Shape::of(&main);
    let natives: Vec<Fun<Jq>> = natives().collect();
    let mut rewrite = Rewrite::new(natives.iter().map(|(name, args, _)| (*name, args.len())));
    // `fromjson` looks at its text before it reads it.
    let json = Term::Call("#fromjson", Vec::new());
    let json = Term::BinOp(Box::new(Term::Call("#json", Vec::new())), BinaryOp::Pipe(None), Box::new(json));
    let json = Def { name: "fromjson", args: Vec::new(), body: json };
    let library = jaq_core::defs().chain(jaq_std::defs()).chain([json]).chain(jaq_json::defs());
    let mut defs: Vec<Def<&str>> = Vec::new();
    for def in library.filter(|def| !FORBIDDEN_DEFS.contains(&def.name)) {
        defs.push(rewrite.def(def));
    }
    defs.push(rewrite.def(Def { name: MAIN, args: Vec::new(), body: main }));
    let arena = Arena::default();
    let modules = Loader::new(defs)
        .load(&arena, File { code: MAIN, path: () })
        .map_err(|_| at(text, text, "expression cannot be loaded".to_owned()))?;
    let filter = Compiler::default()
        .with_funs(natives)
        .with_global_vars(variables.iter().copied())
        .compile(modules)
        .map_err(|errors| {
            let first = errors.into_iter().flat_map(|(_, undefined)| undefined).next();
            let Some((name, kind)) = first else {
                return at(text, text, "expression cannot be compiled".to_owned());
            };
            let note = if FORBIDDEN.contains(&name)
                || FORBIDDEN_DEFS.contains(&name)
                || name == "$ENV"
                || name == "inputs"
            {
                " (a mapping sees its input only: no clock, environment, further inputs or output)"
            } else {
                ""
            };
            at(text, name, format!("undefined {} {name}{note}", kind.as_str()))
        })?;
    Ok((Program { filter, variables: variables.len() }, shape))
}

fn parse(text: &str) -> Result<Term<&str>, MappingError> {
    let tokens = Lexer::new(text).lex().map_err(|errors| match errors.into_iter().next() {
        Some((expected, found)) => at(text, found, format!("expected {}", expected_token(&expected))),
        None => at(text, text, "expression cannot be read".to_owned()),
    })?;
    Parser::new(&tokens).parse(|parser| parser.term()).map_err(|errors| match errors.into_iter().next() {
        Some((expected, found)) => {
            let expected = match expected {
                Expect::Nothing => "the end of the expression",
                other => other.as_str(),
            };
            at(text, Token::opt_as_str(found, text), format!("expected {expected}"))
        }
        None => at(text, text, "expression cannot be read".to_owned()),
    })
}

fn expected_token(expected: &lex::Expect<&str>) -> &'static str {
    match expected {
        lex::Expect::Delim("(" | "[" | "{" | "\"") | lex::Expect::Digit | lex::Expect::Ident => {
            expected.as_str()
        }
        lex::Expect::Escape | lex::Expect::Unicode => expected.as_str(),
        _ => "a term or an operator",
    }
}

/// An error at `part` of `text`; at its beginning when the part is from elsewhere.
fn at(text: &str, part: &str, message: String) -> MappingError {
    let offset = (part.as_ptr().addr()).wrapping_sub(text.as_ptr().addr());
    let before = text.get(..offset).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    MappingError { line, column, message, stopped: false }
}

/// The first output, which must exist.
pub(super) fn run(
    program: &Program,
    given: &Given<'_>,
    limits: &Limits,
    stop: &dyn Fn() -> bool,
) -> Result<Value, MappingError> {
    first(program, given, limits, stop)?.ok_or_else(|| MappingError::at_run("mapping has no output", false))
}

/// The first output, if there is one.
pub(super) fn first(
    program: &Program,
    given: &Given<'_>,
    limits: &Limits,
    stop: &dyn Fn() -> bool,
) -> Result<Option<Value>, MappingError> {
    // The engine has a few assertions of its own; one record must not end the process.
    catch_unwind(AssertUnwindSafe(|| first_here(program, given, limits, stop)))
        .unwrap_or_else(|_| Err(MappingError::at_run("mapping broke the engine", true)))
}

fn first_here(
    program: &Program,
    given: &Given<'_>,
    limits: &Limits,
    stop: &dyn Fn() -> bool,
) -> Result<Option<Value>, MappingError> {
    let mut bytes = 0;
    let input = value::from_json(given.input, &mut bytes);
    let variables = given.variables.iter().chain(std::iter::repeat(&Value::Null)).take(program.variables);
    let variables: Vec<Val> = variables.map(|variable| value::from_json(variable, &mut bytes)).collect();
    let budget = Budget::new(limits, bytes, stop);
    let data = Data { lut: &program.filter.lut, budget: &budget };
    let ctx = Ctx::<Jq>::new(data, Vars::new(variables));
    let output = program.filter.id.run((ctx, input)).next();
    // A halt that some function swallowed on its way is still a halt.
    if let Some(why) = budget.halted() {
        return Err(MappingError::at_run(why.say(), true));
    }
    let value = match output {
        None => return Ok(None),
        Some(Ok(value)) => value,
        Some(Err(exn)) => {
            let message =
                exn.get_err().map_or_else(|_| "mapping left its own label".to_owned(), |error| shown(&error));
            return Err(MappingError::at_run(message, false));
        }
    };
    if budget.weigh(&value).is_err() {
        let why = budget.halted().map_or("mapping made too large a result", Halt::say);
        return Err(MappingError::at_run(why, true));
    }
    value::to_json(&value).map(Some).map_err(|message| MappingError::at_run(message, false))
}

/// The engine's own words, without the values that jq repeats at full length.
fn shown(error: &jaq_json::Error) -> String {
    const MAX_CHARS: usize = 200;
    let text = error.to_string();
    match text.char_indices().nth(MAX_CHARS) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

/// Every native function that exists: the engine's, and the guards.
fn natives() -> impl Iterator<Item = Fun<Jq>> {
    let own = jaq_core::funs::<Jq>().chain(jaq_std::funs::<Jq>()).chain(jaq_json::funs::<Jq>());
    let own = own.filter(|(name, ..)| !FORBIDDEN.contains(name) && *name != "fromjson");
    let json = jaq_json::funs::<Jq>()
        .filter(|(name, ..)| *name == "fromjson")
        .map(|(_, args, f)| ("#fromjson", args, f));
    own.chain(json).chain(counters()).chain(guards())
}

/// A function that pays, and hands its input on: as a value, as a path, as an update.
macro_rules! counter {
    ($name:literal, |$budget:ident, $value:ident| $run:expr, |$path_budget:ident| $path:expr) => {{
        let run: for<'a> fn(Cv<'a, Jq>) -> ValXs<'a, Val> = |cv| {
            let ($budget, $value) = (cv.0.data().budget, &cv.1);
            let paid: Result<(), Exn<'_, Val>> = $run;
            box_once(paid.map(|()| cv.1))
        };
        let function = Native::<Jq>::new(run)
            .with_paths(|cv| {
                let ($budget, $value) = (cv.0.data().budget, &cv.1.0);
                let paid: Result<(), Exn<'_, Val>> = $run;
                let $path_budget = cv.0.data().budget;
                let paid = paid.and_then(|()| $path);
                box_once(paid.map(|()| cv.1))
            })
            .with_update(|cv, f| {
                let ($budget, $value) = (cv.0.data().budget, &cv.1);
                let paid: Result<(), Exn<'_, Val>> = $run;
                match paid {
                    Ok(()) => f(cv.1),
                    Err(halt) => box_once(Err(halt)),
                }
            });
        ($name, v(0), function)
    }};
}

fn counters() -> impl Iterator<Item = Fun<Jq>> {
    [
        counter!("#step", |budget, _value| budget.step(1), |_budget| Ok(())),
        // A path that goes through a call or a loop may grow without end.
        counter!("#enter", |budget, _value| budget.step(1), |budget| budget.link()),
        counter!("#link", |budget, _value| budget.link(), |_budget| Ok(())),
        counter!("#weigh", |budget, value| budget.weigh(value).map(drop), |_budget| Ok(())),
        counter!("#made", |budget, value| budget.made(value), |_budget| Ok(())),
        counter!("#copy", |budget, value| budget.step(1 + surface(value) / 16), |_budget| Ok(())),
    ]
    .into_iter()
}

/// The entries of a value itself, not of what is inside.
fn surface(v: &Val) -> u64 {
    match v {
        Val::Arr(items) => items.len() as u64,
        Val::Obj(entries) => entries.len() as u64,
        Val::TStr(text) | Val::BStr(text) => text.len() as u64 / 64,
        Val::Null | Val::Bool(_) | Val::Num(_) => 0,
    }
}

type Operator = fn(&Budget<'_>, Val, Val) -> Result<jaq_json::ValR, Halt>;

/// An arithmetic operator behind its guard. Both operands are given as variables.
macro_rules! operator {
    ($name:literal, $operator:expr) => {{
        let run: for<'a> fn(Cv<'a, Jq>) -> ValXs<'a, Val> = |mut cv| {
            let right = cv.0.pop_var();
            let left = cv.0.pop_var();
            let budget = cv.0.data().budget;
            const OPERATOR: Operator = $operator;
            box_once(match OPERATOR(budget, left, right) {
                Ok(result) => result.map_err(Exn::from),
                Err(why) => Err(budget.halt(why)),
            })
        };
        native::<Jq>(($name, v(2), run))
    }};
}

/// A check of the input with one argument; hands the input on.
macro_rules! check {
    ($name:literal, $check:expr) => {{
        let run: for<'a> fn(Cv<'a, Jq>) -> ValXs<'a, Val> = |mut cv| {
            let other = cv.0.pop_var();
            let budget = cv.0.data().budget;
            const CHECK: fn(&Budget<'_>, &Val, &Val) -> Result<(), Halt> = $check;
            box_once(CHECK(budget, &cv.1, &other).map(|()| cv.1).map_err(|why| budget.halt(why)))
        };
        native::<Jq>(($name, v(1), run))
    }};
}

fn guards() -> impl Iterator<Item = Fun<Jq>> {
    [
        operator!("#add", |budget, l, r| {
            small_numbers(&l, &r)?;
            if surface(&l) + surface(&r) > 0 {
                // The right side is paid for; the left was, when it was made.
                pay(budget, budget.made(&r))?;
                pay(budget, budget.step(1 + surface(&l) / 64))?;
                pay(budget, budget.take(surface(&l)))?;
            }
            Ok(l + r)
        }),
        operator!("#sub", |budget, l, r| {
            small_numbers(&l, &r)?;
            pay(budget, product(budget, &l, &r))?;
            Ok(l - r)
        }),
        operator!("#mul", |budget, l, r| {
            small_numbers(&l, &r)?;
            if let (Some(text), Some(times)) = (text_len(&l).or(text_len(&r)), number(&l).or(number(&r))) {
                let bytes = (text as f64 * times.max(0.0)).min(1e18);
                pay(budget, budget.take(bytes as u64))?;
            } else if surface(&l) + surface(&r) > 0 {
                pay(budget, budget.made(&l))?;
                pay(budget, budget.made(&r))?;
            }
            Ok(l * r)
        }),
        operator!("#div", |budget, l, r| {
            small_numbers(&l, &r)?;
            if let (Some(text), Some(_)) = (text_len(&l), text_len(&r)) {
                // Splitting makes one value of 32 bytes for each character at most.
                pay(budget, budget.step(1 + text / 16))?;
                pay(budget, budget.take(text.saturating_mul(33)))?;
            }
            Ok(l / r)
        }),
        operator!("#rem", |_budget, l, r| {
            small_numbers(&l, &r)?;
            Ok(l % r)
        }),
        check!("#product", |budget, l, r| pay(budget, product(budget, l, r))),
        check!("#regex", |budget, subject, regex| regex_cost(budget, subject, regex)),
    ]
    .into_iter()
    .chain([json_guard()])
}

/// A halt has been noted in the budget already; this only turns it into its reason.
fn pay<T>(budget: &Budget<'_>, paid: Result<T, Exn<'_, Val>>) -> Result<(), Halt> {
    paid.map(drop).map_err(|_| budget.halted().unwrap_or(Halt::Steps))
}

/// Pays for comparing every part of one value with every part of another.
fn product<'a>(budget: &Budget<'_>, l: &Val, r: &Val) -> Result<(), Exn<'a, Val>> {
    if surface(l) == 0 && surface(r) == 0 {
        return budget.step(1);
    }
    let (left, right) = (budget.weigh(l)? / 32, budget.weigh(r)? / 32);
    budget.step(1 + left.saturating_mul(right) / 64)
}

fn text_len(v: &Val) -> Option<u64> {
    match v {
        Val::TStr(text) | Val::BStr(text) => Some(text.len() as u64),
        _ => None,
    }
}

fn number(v: &Val) -> Option<f64> {
    match v {
        Val::Num(Num::Int(n)) => Some(*n as f64),
        Val::Num(Num::Float(x)) => Some(*x),
        // A big integer is larger than any length that could be paid for.
        Val::Num(Num::BigInt(_)) => Some(f64::MAX),
        Val::Num(Num::Dec(digits)) => Some(digits.parse().unwrap_or(f64::MAX)),
        _ => None,
    }
}

fn small_numbers(l: &Val, r: &Val) -> Result<(), Halt> {
    let large = |v: &Val| matches!(v, Val::Num(Num::BigInt(n)) if n.bits() > MAX_NUMBER_BITS);
    if large(l) || large(r) { Err(Halt::Number) } else { Ok(()) }
}

/// The engine's regular expressions take time in proportion to their size times the text's length.
fn regex_cost(budget: &Budget<'_>, subject: &Val, regex: &Val) -> Result<(), Halt> {
    let (Val::TStr(regex), Some(subject)) = (regex, text_len(subject)) else { return Ok(()) };
    // Every number in braces may be a repetition, and repetitions may be nested.
    let mut size = regex.len() as u64;
    for part in regex.split(|byte| *byte == b'{').skip(1) {
        let digits = part.split(|byte| *byte == b'}').next().unwrap_or_default();
        let largest = digits
            .split(|byte| *byte == b',')
            .filter_map(|n| std::str::from_utf8(n).ok()?.trim().parse::<u64>().ok());
        size = size.saturating_mul(largest.max().unwrap_or(1).max(1));
    }
    if size > MAX_REGEX {
        return Err(Halt::Regex);
    }
    pay(budget, budget.step(1 + size / 4 + size.saturating_mul(subject) / 64))
}

/// `fromjson` for texts whose nesting and numbers are small enough for a recursive reader.
fn json_guard() -> Fun<Jq> {
    let run: for<'a> fn(Cv<'a, Jq>) -> ValXs<'a, Val> = |cv| {
        let budget = cv.0.data().budget;
        if let Val::TStr(text) | Val::BStr(text) = &cv.1 {
            let (mut depth, mut digits) = (0_usize, 0_usize);
            for byte in text.iter() {
                match byte {
                    // Brackets inside texts count, too: a text of a hundred brackets is rare, a wrong guess is safe.
                    b'[' | b'{' => depth += 1,
                    b']' | b'}' => depth = depth.saturating_sub(1),
                    _ => {}
                }
                digits = if byte.is_ascii_digit() { digits + 1 } else { 0 };
                if depth > 100 {
                    return box_once(Err(budget.halt(Halt::Depth)));
                }
                if digits > MAX_DIGITS {
                    return box_once(Err(budget.halt(Halt::Number)));
                }
            }
        }
        bome(Ok(cv.1))
    };
    native::<Jq>(("#json", v(0), run))
}
