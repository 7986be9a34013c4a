"""The sentences of the generated world: questions, answers around a value, prose that says nothing, and typing habits.

Data only, in three languages; `{s}` is the subject of a question, `{v}` a value, `{w}` another value, `{q}` the
question. A sentence that begins with `~` is for the held-out split, the others are for training. Standard library only.
"""

from dataclasses import dataclass

from values import Date, Listing, Number, Pair, Quantity, Year
from world import Lang, Named, Person


# Kept dense: one list a paragraph.
# fmt: off
@dataclass(frozen=True)
class Topic:
    """What can be asked: how a value is drawn, and per language the questions and the sentences that answer them."""

    kind: str
    draw: object
    questions: dict
    answers: dict


TOPICS = [
    Topic(
        "person",
        Person.draw,
        {
            Lang.EN: ["Who painted {s}?", "Who wrote {s}?", "Who founded {s}?", "Who is the mayor of {s}?",
                      "Who discovered {s}?", "Which architect designed {s}?", "Name the director of {s}.",
                      "Who was the first to climb {s}?", "~Who composed {s}?", "~Who led the expedition to {s}?"],
            Lang.DE: ["Wer schrieb {s}?", "Wer malte {s}?", "Wer gründete {s}?", "Wer leitet {s}?",
                      "~Wer entdeckte {s}?", "~Von wem stammt {s}?"],
            Lang.ZH: ["谁写了{s}？", "谁创立了{s}？", "{s}的作者是谁？", "~谁发现了{s}？"],
        },
        {
            Lang.EN: ["{v} did.", "It was the work of {v}.", "{s} goes back to {v}.", "{s} is by {v}.",
                      "The person was {v}, who was famous at the time.", "~We owe {s} to {v}.", "~{v} was behind it."],
            Lang.DE: ["Das war {v}.", "{s} stammt von {v}.", "~{s} geht auf {v} zurück."],
            Lang.ZH: ["是{v}。", "{s}是{v}的作品。", "~{s}出自{v}之手。"],
        },
    ),
    Topic(
        "place",
        Named.place,
        {
            Lang.EN: ["Where is {s}?", "In which town was {s} born?", "What is the capital of {s}?",
                      "Which river flows through {s}?", "Where did {s} die?", "~Where does {s} have its headquarters?"],
            Lang.DE: ["Wo liegt {s}?", "Wo wurde {s} geboren?", "Wie heißt die Hauptstadt von {s}?",
                      "~Welcher Fluss fließt durch {s}?"],
            Lang.ZH: ["{s}在哪里？", "{s}的首都是哪里？", "~{s}出生在哪里？"],
        },
        {
            Lang.EN: ["in {v}", "In {v}.", "{s} is in {v}.", "The place is {v}, a quiet town.",
              "~One finds it in {v}."],
            Lang.DE: ["in {v}", "{s} liegt in {v}.", "~Man findet es in {v}."],
            Lang.ZH: ["在{v}。", "{s}在{v}。", "~{s}位于{v}。"],
        },
    ),
    Topic(
        "work",
        Named.work,
        {
            Lang.EN: ["What is the best known work of {s}?", "Which book did {s} write?", "Which ship did {s} command?",
                      "~Which opera made {s} famous?"],
            Lang.DE: ["Wie heißt das Hauptwerk von {s}?", "~Welches Buch schrieb {s}?"],
            Lang.ZH: ["{s}的代表作是什么？", "~{s}写了哪本书？"],
        },
        {
            Lang.EN: ["{s} is known for {v}.", "It is called {v}.", "~{v} is the one."],
            Lang.DE: ["Es heißt {v}.", "~Bekannt wurde {s} mit {v}."],
            Lang.ZH: ["它叫{v}。", "~{s}因{v}而闻名。"],
        },
    ),
    Topic(
        "word",
        Named.thing,
        {
            Lang.EN: ["What is {s} made of?", "Which instrument does {s} play?", "What colour is {s}?",
                      "Which animal is on the flag of {s}?", "What did {s} study?", "What is the main crop of {s}?",
                      "~Which metal is mined in {s}?", "~What is {s} famous for?"],
            Lang.DE: ["Woraus besteht {s}?", "Welches Instrument spielt {s}?", "~Was baut man in {s} an?"],
            Lang.ZH: ["{s}是用什么做的？", "{s}演奏什么乐器？", "~{s}以什么闻名？"],
        },
        {
            Lang.EN: ["{s}: {v}.", "Mostly {v}.", "It is {v}, and nothing else.", "~One would say {v}."],
            Lang.DE: ["Vor allem {v}.", "~Man sagt {v}."],
            Lang.ZH: ["主要是{v}。", "~一般说是{v}。"],
        },
    ),
    Topic(
        "year",
        Year.draw,
        {
            Lang.EN: ["When was {s} built?", "In which year did {s} die?", "When was {s} founded?",
                      "What year did {s} open?", "~When did {s} end?", "~Which year saw the first edition of {s}?"],
            Lang.DE: ["Wann wurde {s} gebaut?", "In welchem Jahr starb {s}?", "~Seit wann gibt es {s}?"],
            Lang.ZH: ["{s}是哪一年建成的？", "{s}哪年去世？", "~{s}始于哪一年？"],
        },
        {
            Lang.EN: ["It happened in the year {v}.", "{s} dates from {v}.", "~{v} was the year."],
            Lang.DE: ["Das war {v}.", "~Das Jahr war {v}."],
            Lang.ZH: ["那是{v}。", "~时间是{v}。"],
        },
    ),
    Topic(
        "number",
        Number.draw,
        {
            Lang.EN: ["How many people live in {s}?", "How many bridges does {s} have?", "How many keys has {s}?",
                      "What is the number of rooms in {s}?", "~How many members does {s} have?"],
            Lang.DE: ["Wie viele Menschen leben in {s}?", "Wie viele Brücken hat {s}?",
              "~Wie viele Mitglieder hat {s}?"],
            Lang.ZH: ["{s}有多少人？", "{s}有几座桥？", "~{s}有多少成员？"],
        },
        {
            Lang.EN: ["{s} has {v}.", "There are {v}.", "Exactly {v} of them.", "~They number {v}."],
            Lang.DE: ["Es sind {v}.", "{s} hat {v}.", "~Genau {v}."],
            Lang.ZH: ["有{v}个。", "一共{v}。", "~总数为{v}。"],
        },
    ),
    Topic(
        "unit",
        Quantity.draw,
        {
            Lang.EN: ["How long is {s}?", "How heavy is {s}?", "How high is {s}?", "What does {s} measure?",
                      "~What is the size of {s}?"],
            Lang.DE: ["Wie lang ist {s}?", "Wie schwer ist {s}?", "~Wie groß ist {s}?"],
            Lang.ZH: ["{s}有多长？", "{s}有多重？", "~{s}有多大？"],
        },
        {
            Lang.EN: ["{s} measures {v}.", "It comes to {v}.", "~All in all {v}."],
            Lang.DE: ["Es sind {v}.", "~Insgesamt {v}."],
            Lang.ZH: ["大约是{v}。", "~总共{v}。"],
        },
    ),
    Topic(
        "date",
        Date.draw,
        {
            Lang.EN: ["On what date was {s} born?", "When exactly did {s} open?", "~On which day was {s} signed?"],
            Lang.DE: ["An welchem Tag wurde {s} geboren?", "~Wann genau wurde {s} eröffnet?"],
            Lang.ZH: ["{s}是哪一天出生的？", "~{s}是哪天签署的？"],
        },
        {
            Lang.EN: ["It was on {v}.", "The date is {v}.", "~The day was {v}."],
            Lang.DE: ["Das war {v}.", "~Der Tag war {v}."],
            Lang.ZH: ["日期是{v}。", "~那天是{v}。"],
        },
    ),
    Topic(
        "list",
        Listing.draw,
        {
            Lang.EN: ["What are the parts of {s}?", "Which ones belong to {s}?", "Name all that {s} has.",
                      "~List the neighbours of {s}."],
            Lang.DE: ["Was gehört zu {s}?", "~Nenne alle Teile von {s}."],
            Lang.ZH: ["{s}包括哪些？", "~列出{s}的组成部分。"],
        },
        {
            Lang.EN: ["They are {v}.", "{s} has {v}.", "These: {v}", "~There are these: {v}."],
            Lang.DE: ["Das sind {v}.", "~Dazu zählen {v}."],
            Lang.ZH: ["包括{v}。", "~有{v}。"],
        },
    ),
    Topic(
        "pair",
        Pair.draw,
        {
            Lang.EN: ["Who built {s}, and when?", "Who wrote {s} and in which year?",
              "~Who founded {s}, and in what year?"],
            Lang.DE: ["Wer baute {s} und wann?", "~Wer gründete {s} und in welchem Jahr?"],
            Lang.ZH: ["谁建造了{s}，在哪一年？", "~谁创作了{s}，什么时候？"],
        },
        {
            Lang.EN: ["That was {v}.", "~I would say {v}."],
            Lang.DE: ["Das war {v}."],
            Lang.ZH: ["是{v}。"],
        },
    ),
]

# A sentence that asserts `{v}` and fits every topic.
ASSERTIONS = {
    Lang.EN: ["{v}", "{v}", "{v}", "{v}.", "{v}.", "The answer is {v}.", "Answer: {v}", "It is {v}.", "It was {v}.",
              "I believe it is {v}.", "That would be {v}.", "Final answer: {v}", "{v}, as far as I know.",
              "If I recall correctly, {v}.", "So the answer is {v}.", "{q} {v}", "{q} The answer is {v}.",
              "As for {s}: {v}.", "\\boxed{{{v}}}", "<answer>{v}</answer>", "**{v}**", "Sure! {v}.", "Clearly {v}.",
              "~The correct response is {v}.", "~I am quite sure that it is {v}.", "~My answer: {v}",
              "~According to the sources it is {v}.", "~Regarding {s}, it is {v}.", "~Well, {v}."],
    Lang.DE: ["{v}", "{v}", "{v}.", "Die Antwort ist {v}.", "Antwort: {v}", "Es ist {v}.", "Es war {v}.",
              "Ich glaube, {v}.", "Soweit ich weiß, {v}.", "{q} {v}", "Also {v}.",
              "~Die richtige Antwort lautet {v}.", "~Meines Wissens {v}."],
    Lang.ZH: ["{v}", "{v}", "{v}。", "答案是{v}。", "答案：{v}", "应该是{v}。", "我认为是{v}。", "据我所知，{v}。", "{q}{v}",
              "~正确答案是{v}。", "~我想是{v}。"],
}
# `{v}` is asserted and `{w}` is not, though it is named.
CONTRASTS = {
    Lang.EN: ["Not {w} but {v}.", "It was {v}, not {w}.", "Some say {w}, but it is {v}.", "It is not {w}; it is {v}.",
              "At first I thought of {w}. It is {v}.", "{w} is wrong. The answer is {v}.", "{v} rather than {w}.",
              "Many believe it is {w}, yet in fact it is {v}.", "Is it {w}? No, it is {v}.",
              "~People often say {w}, but the answer is {v}.", "~Not {w}; rather {v}.",
              "~{w} would be wrong, it is {v}."],
    Lang.DE: ["Nicht {w}, sondern {v}.", "Es war {v}, nicht {w}.", "Manche sagen {w}, aber es ist {v}.",
              "~Viele glauben {w}, doch es ist {v}."],
    Lang.ZH: ["不是{w}，而是{v}。", "是{v}，不是{w}。", "有人说是{w}，其实是{v}。", "~很多人以为是{w}，但答案是{v}。"],
}
# `{v}` is named and denied, and nothing else is said.
DENIALS = {
    Lang.EN: ["It was not {v}.", "Not {v}.", "Certainly not {v}.", "Anything but {v}.", "{v} is wrong.",
              "The answer is not {v}.", "It cannot be {v}.", "~I do not think that it is {v}.", "~It is not {v}."],
    Lang.DE: ["Nicht {v}.", "Es war nicht {v}.", "{v} ist falsch.", "~Sicher nicht {v}."],
    Lang.ZH: ["不是{v}。", "{v}是错的。", "~肯定不是{v}。"],
}
# Several values are named and none is chosen.
HEDGES = {
    Lang.EN: ["{v} or {w}", "Either {v} or {w}.", "It could be {v}, {w} or {x}.", "{v}, {w}, {x}", "{v} / {w} / {x}",
              "Possible answers: {v}; {w}; {x}.", "One of these: {v}, {w}, {x}.", "Maybe {v}, maybe {w}.",
              "~Perhaps {v} or {w} or {x}.", "~Candidates are {v}, {w} and {x}."],
    Lang.DE: ["{v} oder {w}", "Entweder {v} oder {w}.", "Vielleicht {v}, vielleicht {w}.",
              "~Mögliche Antworten: {v}, {w}, {x}."],
    Lang.ZH: ["{v}或{w}", "要么是{v}，要么是{w}。", "~可能是{v}、{w}或{x}。"],
}
# No answer at all.
EVASIONS = {
    Lang.EN: ["", " ", ".", "...", "?", "-", "I don't know.", "I do not know the answer.", "unknown", "N/A", "None",
              "I cannot help with that.", "It depends.", "That is a good question.", "No idea, sorry.", "{s}", "{q}",
              "The question cannot be answered.", "See above.", "The answer is", "~I am not sure.", "~Nobody knows.",
              "~There is no way to tell.", "~Good question about {s}!", "~\n"],
    Lang.DE: ["", "Ich weiß es nicht.", "Keine Ahnung.", "{q}", "{s}", "Das kommt darauf an.", "~Unbekannt.",
              "~Das kann niemand sagen."],
    Lang.ZH: ["", "我不知道。", "不清楚。", "{q}", "{s}", "~无法回答。", "~没有人知道。"],
}
# Prose that asserts no value.
FILLERS = {
    Lang.EN: ["This is well documented.", "Let me think about it.", "Hope this helps!",
              "There are many books about {s}.",
              "{s} is known to many people.", "I looked it up twice.", "The question is about {s}.", "Good question.",
              "The weather was mild that spring and the roads were dry.", "The committee met twice and then went home.",
              "First one has to understand what is asked.", "Sources agree on this.", "Thank you for asking.",
              "A visit to {s} is worth the trip, above all in autumn.", "Let me know if you need more.",
              "The library keeps a copy of it in the reading room.", "Historians have written much about {s}.",
              "~As an expert, I can tell you more about {s}.", "~This has been studied for a long time.",
              "~The museum shop sells postcards and small prints.", "~Feel free to ask again.",
              "~I checked the records."],
    Lang.DE: ["Das ist gut belegt.", "Gute Frage.", "Über {s} gibt es viele Bücher.", "Ich habe nachgesehen.",
              "Das Wetter war mild und die Straßen waren trocken.", "~Viele kennen {s}.", "~Das ist lange bekannt."],
    Lang.ZH: ["这有据可查。", "好问题。", "关于{s}有很多书。", "我查过了。", "那年春天天气很好。", "~很多人知道{s}。", "~希望有帮助。"],
}
# Statements for yes/no questions: the question, the statement, its negation.
CLAIMS = {
    Lang.EN: [("Is {a} in {b}?", "{a} is in {b}", "{a} is not in {b}"), ("Did {a} write {b}?", "{a} wrote {b}",
              "{a} did not write {b}"),
              ("Does {a} border {b}?", "{a} borders {b}", "{a} does not border {b}"),
              ("Was {a} built before {b}?", "{a} was built before {b}", "{a} was not built before {b}"),
              ("Can {a} see {b}?", "{a} can see {b}", "{a} cannot see {b}"),
              ("Are {a} and {b} related?", "{a} and {b} are related", "{a} and {b} are not related")],
    Lang.DE: [("Liegt {a} in {b}?", "{a} liegt in {b}", "{a} liegt nicht in {b}"), ("Gehört {a} zu {b}?",
              "{a} gehört zu {b}", "{a} gehört nicht zu {b}"),
              ("Ist {a} größer als {b}?", "{a} ist größer als {b}", "{a} ist nicht größer als {b}")],
    Lang.ZH: [("{a}在{b}吗？", "{a}在{b}", "{a}不在{b}"), ("{a}属于{b}吗？", "{a}属于{b}", "{a}不属于{b}"), ("{a}比{b}大吗？",
              "{a}比{b}大", "{a}不比{b}大")],
}
# Ways to say yes and no; `{c}` is the statement that goes with it.
ASSENTS = {
    Lang.EN: (["Yes", "yes", "Yes.", "Yes, {c}.", "{c}.", "{c}", "Correct.", "True", "That is right.",
              "Yes, it is so.", "Indeed, {c}.", "~Certainly.", "~I think that {c}."],
              ["No", "no", "No.", "No, {c}.", "{c}.", "{c}", "Incorrect.", "False", "That is wrong.",
              "No, it is not so.", "In fact {c}.", "~Certainly not.", "~I think that {c}."]),
    Lang.DE: (["Ja", "ja", "Ja.", "Ja, {c}.", "{c}.", "Richtig.", "Das stimmt.", "~Ja, das stimmt."],
              ["Nein", "nein", "Nein.", "Nein, {c}.", "{c}.", "Falsch.", "Das stimmt nicht.",
              "~Nein, das stimmt nicht."]),
    Lang.ZH: (["是", "是的", "是的，{c}。", "{c}。", "对", "~没错。"], ["不是", "否", "不，{c}。", "{c}。", "不对", "~错。"]),
}
