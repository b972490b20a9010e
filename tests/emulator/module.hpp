// A module of PTX, read into instructions that a machine without a GPU can follow: what NVRTC and nvcc make of this library,
// and no more. What is not known is refused when the module is read, with the line.
#pragma once

#include <cctype>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace emulator {

struct thread;
struct instruction;
using action = void (*)(thread&, const instruction&);

struct function;

// A register of the frame, or a constant; or a place in the parameters (`base`), or one in local memory.
struct operand {
    enum class base_of : std::uint8_t { nothing, parameters, local };
    std::uint64_t value = 0;
    int reg = -1;
    base_of base = base_of::nothing;
    std::uint8_t inverted = 0;  // 1: the opposite of a predicate
};

// Of a call: what is copied from the caller's parameters to the callee's, and the result back.
struct call_of {
    struct copy {
        int caller, callee, bytes;
    };
    const function* callee = nullptr;
    std::vector<copy> arguments;
    std::vector<copy> results;
};

struct instruction {
    action run = nullptr;
    operand to;       // the first destination
    operand also;     // the second, if any
    operand args[4];  // sources; of an address: the register and the offset in `value`
    std::shared_ptr<std::vector<operand>> parts;  // of a vector
    std::shared_ptr<call_of> call;
    int guard = -1;   // a predicate
    bool unless = false;
    int target = -1;  // an instruction, or the kind of a shuffle
    int line = 0;
};

// Parameters, and those of the functions that it calls, lie in one memory of the frame.
struct function {
    std::string name;
    std::vector<instruction> code;
    std::map<std::string, int> registers;
    std::map<std::string, std::pair<int, int>> parameters;  // offset and size
    std::vector<std::string> inputs;                        // in order
    std::string output;
    int parameter_bytes = 0;
    int shared_bytes = 0;
    int local_bytes = 0;
};

struct module_text {
    std::map<std::string, std::unique_ptr<function>> functions;
    std::map<std::string, std::vector<std::uint64_t>> globals;
    const function* find(const std::string& name) const {
        const auto at = functions.find(name);
        return at == functions.end() ? nullptr : at->second.get();
    }
};

// What an opcode does: of its parts between the dots. Null if unknown. See instructions.hpp.
action action_of(const std::vector<std::string>& opcode, instruction& to);

namespace detail {

struct reader {
    std::string_view text;
    std::size_t at = 0;
    int line = 1;

    [[noreturn]] void fail(const std::string& what) const {
        throw std::runtime_error("PTX, line " + std::to_string(line) + ": " + what);
    }
    void skip() {
        while (at < text.size()) {
            if (text[at] == '\n') ++line;
            if (std::isspace(static_cast<unsigned char>(text[at]))) ++at;
            else if (text.substr(at, 2) == "//") at = text.find('\n', at);
            else return;
            if (at > text.size()) at = text.size();
        }
    }
    bool done() {
        skip();
        return at >= text.size();
    }
    static bool of_word(char c) {
        return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '$' || c == '%' || c == '.' || c == ':';
    }
    // A word with its dots, or one sign.
    std::string next() {
        skip();
        if (at >= text.size()) fail("the text ends too early");
        std::size_t end = at;
        if (text[at] == '"') {
            end = text.find('"', at + 1) + 1;
        } else {
            while (end < text.size() && of_word(text[end])) ++end;
            // A label's colon is not part of it; those of L1::no_allocate are.
            if (end > at && text[end - 1] == ':' ) --end;
            if (end == at) ++end;
        }
        std::string word(text.substr(at, end - at));
        at = end;
        return word;
    }
    std::string peek() {
        const auto before = *this;
        std::string word = next();
        *this = before;
        return word;
    }
    bool take(const char* what) {
        if (peek() != what) return false;
        next();
        return true;
    }
    void expect(const char* what) {
        const std::string word = next();
        if (word != what) fail(word + " where " + what + " is expected");
    }
    int number() { return std::atoi(next().c_str()); }
};

inline int bytes_of_type(const std::string& type) {  // ".b8", "f64"
    std::size_t digits = type.find_first_of("0123456789");
    return digits == std::string::npos ? 1 : std::atoi(type.c_str() + digits) / 8;
}
inline int aligned(int offset, int alignment) { return (offset + alignment - 1) / alignment * alignment; }

inline std::uint64_t number_of(const std::string& word) {
    if (word.size() > 2 && word[0] == '0' && (word[1] == 'f' || word[1] == 'F' || word[1] == 'd' || word[1] == 'D')) {
        return std::strtoull(word.c_str() + 2, nullptr, 16);
    }
    return std::strtoull(word.c_str(), nullptr, 0);
}

class parser {
public:
    explicit parser(std::string_view text) : in_{text} {}

    module_text parse() {
        while (!in_.done()) {
            const std::string word = in_.next();
            if (word == ".version" || word == ".target" || word == ".address_size") {
                in_.next();
                while (in_.take(",")) in_.next();
            } else if (word == ".visible" || word == ".weak" || word == ".extern") {
                continue;
            } else if (word == ".shared") {
                shared_.insert(declaration());
                in_.expect(";");
            } else if (word == ".global" || word == ".const") {
                parse_global();
            } else if (word == ".entry") {
                parse_function(false);
            } else if (word == ".func") {
                parse_function(true);
            } else {
                in_.fail("a declaration that is not known: " + word);
            }
        }
        resolve_calls();
        return std::move(module_);
    }

private:
    struct variable {
        int alignment, bytes;
        bool open;  // [], whose size the launch says
    };

    // After ".shared", ".param" and the like: .align 8 .b8 name[16]
    std::pair<std::string, variable> declaration() {
        int alignment = 0;
        std::string word = in_.next();
        if (word == ".align") {
            alignment = in_.number();
            word = in_.next();
        }
        if (word == ".ptr") in_.fail("a pointer's attributes");
        const int size = bytes_of_type(word);
        std::string name = in_.next();
        int count = 1;
        bool open = false;
        if (in_.take("[")) {
            open = in_.peek() == "]";
            if (!open) count = in_.number();
            in_.expect("]");
        }
        return {name, {alignment > 0 ? alignment : size, size * count, open}};
    }
    // With its first value, or values; 0 without.
    void parse_global() {
        const auto before = in_;
        in_.take(".align") ? in_.next() : std::string();
        const int size = bytes_of_type(in_.next());
        in_ = before;
        const auto [name, v] = declaration();
        auto& memory = module_.globals[name];
        memory.assign(static_cast<std::size_t>(v.bytes) / 8 + 1, 0);
        if (in_.take("=")) {
            const bool many = in_.take("{");
            auto* const bytes = reinterpret_cast<std::byte*>(memory.data());
            int at = 0;
            do {
                const bool minus = in_.take("-");
                std::uint64_t x = 0;
                if (in_.take("generic")) {
                    in_.expect("(");
                    x = reinterpret_cast<std::uintptr_t>(module_.globals.at(in_.next()).data());
                    in_.expect(")");
                } else {
                    x = number_of(in_.next());
                }
                if (minus) x = ~x + 1;
                if (at + size > v.bytes) in_.fail("more values than there is room for");
                std::memcpy(bytes + at, &x, static_cast<std::size_t>(size));
                at += size;
            } while (many && in_.take(","));
            if (many) in_.expect("}");
        }
        in_.expect(";");
    }
    void add_parameter(function& f, const std::pair<std::string, variable>& what) {
        const auto known = f.parameters.find(what.first);  // of an earlier call
        if (known != f.parameters.end() && known->second.second >= what.second.bytes) return;
        const int offset = aligned(f.parameter_bytes, what.second.alignment);
        f.parameters[what.first] = {offset, what.second.bytes};
        f.parameter_bytes = offset + what.second.bytes;
    }
    void parse_function(bool inner) {
        auto made = std::make_unique<function>();
        function& f = *made;
        if (inner && in_.take("(")) {
            in_.expect(".param");
            const auto result = declaration();
            f.output = result.first;
            add_parameter(f, result);
            in_.expect(")");
        }
        f.name = in_.next();
        if (in_.take("(")) {
            while (!in_.take(")")) {
                in_.take(",");
                in_.expect(".param");
                const auto parameter = declaration();
                f.inputs.push_back(parameter.first);
                add_parameter(f, parameter);
            }
        }
        while (in_.peek()[0] == '.') {  // .maxntid 256, 1, 1
            in_.next();
            if (in_.peek()[0] == '.') continue;
            if (in_.peek() != "{") in_.next();
            while (in_.take(",")) in_.next();
        }
        if (in_.take(";")) return;  // declared, to be defined later
        in_.expect("{");
        parse_body(f);
        module_.functions[f.name] = std::move(made);
    }

    void parse_body(function& f) {
        std::map<std::string, int> labels;
        std::vector<std::pair<std::size_t, std::string>> jumps;
        std::map<std::string, operand> names;  // of shared and local memory
        for (const auto& [name, v] : shared_) {
            // Memory of the launch's size comes after the rest, at a multiple of 128 (see place_of_open).
            if (v.open) names[name] = {open_shared, -1};
        }
        for (const auto& [name, memory] : module_.globals) {
            names[name] = {reinterpret_cast<std::uintptr_t>(memory.data()), -1};
        }
        int depth = 1;
        while (depth > 0) {
            const std::string word = in_.next();
            if (word == "{") {
                ++depth;
            } else if (word == "}") {
                --depth;
            } else if (word == ".reg") {
                in_.next();
                std::string name = in_.next();
                if (in_.take("<")) {
                    const int count = in_.number();
                    for (int k = 0; k < count; ++k) reg(f, name + std::to_string(k));
                    in_.expect(">");
                } else {
                    reg(f, name);
                    while (in_.take(",")) reg(f, in_.next());
                }
                in_.expect(";");
            } else if (word == ".shared") {
                const auto [name, v] = declaration();
                f.shared_bytes = aligned(f.shared_bytes, v.alignment);
                names[name] = {static_cast<std::uint64_t>(f.shared_bytes) + first_shared, -1};
                f.shared_bytes += v.bytes;
                in_.expect(";");
            } else if (word == ".local") {
                const auto [name, v] = declaration();
                f.local_bytes = aligned(f.local_bytes, v.alignment);
                names[name] = {static_cast<std::uint64_t>(f.local_bytes), -1, operand::base_of::local};
                f.local_bytes += v.bytes;
                in_.expect(";");
            } else if (word == ".param") {
                add_parameter(f, declaration());
                in_.expect(";");
            } else if (word == ".pragma" || word == ".loc") {
                while (!in_.take(";")) in_.next();
            } else if (in_.peek() == ":") {
                in_.next();
                labels[word] = static_cast<int>(f.code.size());
            } else {
                parse_instruction(f, word, names, jumps);
            }
        }
        for (const auto& [at, label] : jumps) {
            if (!labels.contains(label)) in_.fail("no label " + label);
            f.code[at].target = labels[label];
        }
    }
    static int reg(function& f, const std::string& name) {
        return f.registers.try_emplace(name, static_cast<int>(f.registers.size())).first->second;
    }

    operand value(function& f, const std::map<std::string, operand>& names) {
        operand x;
        if (in_.take("!")) x.inverted = 1;
        const bool minus = in_.take("-");
        const std::string word = in_.next();
        if (word == "_") return x;
        if (const auto at = f.registers.find(word); at != f.registers.end()) {
            x.reg = at->second;
        } else if (word == "%tid.x" || word == "%ntid.x" || word == "%ctaid.x" || word == "%nctaid.x" || word == "%laneid" ||
                   word == "%cluster_ctarank") {
            x.reg = reg(f, word);  // which the machine fills in
        } else if (const auto named = names.find(word); named != names.end()) {
            x = named->second;
        } else if (const auto parameter = f.parameters.find(word); parameter != f.parameters.end()) {
            x.value = static_cast<std::uint64_t>(parameter->second.first);
            x.base = operand::base_of::parameters;
        } else if (std::isdigit(static_cast<unsigned char>(word[0]))) {
            x.value = number_of(word);
            if (minus) x.value = ~x.value + 1;
        } else {
            in_.fail("an operand that is not known: " + word);
        }
        return x;
    }
    // [register + offset] or [name + offset]
    operand address(function& f, const std::map<std::string, operand>& names) {
        in_.expect("[");
        operand x = value(f, names);
        while (!in_.take("]")) {
            const bool minus = in_.take("-");
            if (!minus) in_.expect("+");
            const bool also = in_.take("-");
            const std::uint64_t offset = number_of(in_.next());
            x.value += minus != also ? ~offset + 1 : offset;
        }
        return x;
    }

    void parse_call(function& f, instruction& i) {
        call made{&f, f.code.size(), "", {}, {}};
        const auto places = [&](std::vector<int>& to) {  // as they lie now: a later call may have larger ones of the same name
            while (!in_.take(")")) {
                in_.take(",");
                to.push_back(f.parameters.at(in_.next()).first);
            }
        };
        if (in_.take("(")) {
            places(made.results);
            in_.expect(",");
        }
        made.name = in_.next();
        if (in_.take(",")) {
            in_.expect("(");
            places(made.arguments);
        }
        calls_.push_back(made);
        i.run = action_of({"call"}, i);
    }
    void resolve_calls() {
        for (const call& c : calls_) {
            auto to = std::make_shared<call_of>();
            to->callee = module_.find(c.name);
            if (to->callee == nullptr) in_.fail("no function " + c.name);
            const auto copy = [&](int here, const std::string& there) {
                const auto& [offset, bytes] = to->callee->parameters.at(there);
                return call_of::copy{here, offset, bytes};
            };
            for (std::size_t k = 0; k < c.arguments.size(); ++k) {
                to->arguments.push_back(copy(c.arguments[k], to->callee->inputs.at(k)));
            }
            for (const int result : c.results) to->results.push_back(copy(result, to->callee->output));
            c.from->code[c.at].call = to;
        }
    }

    void parse_instruction(function& f, std::string word, const std::map<std::string, operand>& names,
                           std::vector<std::pair<std::size_t, std::string>>& jumps) {
        instruction i;
        i.line = in_.line;
        if (word == "@") {
            i.unless = in_.take("!");
            i.guard = reg(f, in_.next());
            word = in_.next();
        }
        std::vector<std::string> opcode;
        for (std::size_t at = 0; at <= word.size();) {
            std::size_t dot = word.find('.', at);
            if (dot == std::string::npos) dot = word.size();
            opcode.push_back(word.substr(at, dot - at));
            at = dot + 1;
        }
        if (opcode[0] == "call") {
            parse_call(f, i);
        } else if (opcode[0] == "bra") {
            jumps.emplace_back(f.code.size(), in_.next());
            i.run = action_of(opcode, i);
        } else {
            parse_operands(f, i, opcode, names);
            i.run = action_of(opcode, i);
        }
        if (i.run == nullptr) in_.fail("an instruction that is not known: " + word);
        in_.expect(";");
        f.code.push_back(std::move(i));
    }
    void parse_operands(function& f, instruction& i, const std::vector<std::string>& opcode,
                        const std::map<std::string, operand>& names) {
        const std::string& name = opcode[0];
        const bool writes = name != "st" && name != "bar" && name != "cp" && !(name == "mbarrier" && opcode[1] == "init");
        bool first = writes;
        int count = 0;
        while (in_.peek() != ";") {
            in_.take(",");
            if (in_.peek() == "{") {
                in_.next();
                while (!in_.take("}")) {
                    in_.take(",");
                    if (i.parts == nullptr) i.parts = std::make_shared<std::vector<operand>>();
                    i.parts->push_back(value(f, names));
                }
                first = false;
                continue;
            }
            const operand x = in_.peek() == "[" ? address(f, names) : value(f, names);
            if (first) {
                i.to = x;
                if (in_.take("|")) i.also = value(f, names);
                first = false;
            } else {
                if (count == 4) in_.fail("too many operands");
                i.args[count++] = x;
            }
        }
    }

public:
    static constexpr std::uint64_t first_shared = 1024;          // addresses below are nobody's
    static constexpr std::uint64_t open_shared = 1u << 20;       // where memory of the launch's size begins
private:
    struct call {
        function* from;
        std::size_t at;
        std::string name;
        std::vector<int> arguments, results;  // places in the caller's parameters
    };
    reader in_;
    module_text module_;
    std::map<std::string, variable> shared_;
    std::vector<call> calls_;
};

}  // namespace detail

inline constexpr std::uint64_t first_shared = detail::parser::first_shared;
inline constexpr std::uint64_t open_shared = detail::parser::open_shared;

inline module_text parse(std::string_view text) { return detail::parser(text).parse(); }

}  // namespace emulator
