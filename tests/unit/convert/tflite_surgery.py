"""Turns an honest TFLite file into one that lies, one way at a time."""

import copy

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

CODES = {name: code for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}


class Surgery:
    """A file's object tree with the few operations that the lies need."""

    def __init__(self, path):
        self.model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
        self.graph = self.model.subgraphs[0]

    def save(self, path):
        builder = flatbuffers.Builder(1024)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        path.write_bytes(bytes(builder.Output()))
        return path

    def operators(self, name):
        wanted = {index for index, code in enumerate(self.model.operatorCodes) if code.builtinCode == CODES[name]}
        return [operator for operator in self.graph.operators if operator.opcodeIndex in wanted]

    def tensor(self, index):
        return self.graph.tensors[index]

    def add_tensor(self, like, **fields):
        tensor = copy.deepcopy(self.graph.tensors[like])
        tensor.name = f"extra_{len(self.graph.tensors)}"
        for name, value in fields.items():
            setattr(tensor, name, value)
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def add_operator(self, position, name, inputs, outputs):
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = CODES[name]
        self.model.operatorCodes.append(code)
        operator = schema.OperatorT()
        operator.opcodeIndex, operator.inputs, operator.outputs = len(self.model.operatorCodes) - 1, inputs, outputs
        self.graph.operators.insert(position, operator)

    def data(self, index):
        tensor = self.tensor(index)
        kinds = {
            schema.TensorType.FLOAT32: np.float32,
            schema.TensorType.INT8: np.int8,
            schema.TensorType.INT32: np.int32,
        }
        return (
            np.asarray(self.model.buffers[tensor.buffer].data, np.uint8).view(kinds[tensor.type]).reshape(tensor.shape)
        )

    def set_data(self, index, data, kind):
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(data.tobytes(), np.uint8)
        self.model.buffers.append(buffer)
        self.tensor(index).buffer, self.tensor(index).type = len(self.model.buffers) - 1, kind

    def grid(self, scale=0.05, zero_point=0):
        parameters = schema.QuantizationParametersT()
        parameters.scale, parameters.zeroPoint = np.array([scale], np.float32), np.array([zero_point], np.int64)
        return parameters

    def pair_behind(self, operator, first, second, **fields):
        """Put two operators behind one: it writes a new tensor, they lead to the old one."""
        position = self.graph.operators.index(operator) + 1
        target = operator.outputs[0]
        raw = self.add_tensor(target)
        middle = self.add_tensor(target, **fields)
        operator.outputs = [raw]
        self.add_operator(position, first, [raw], [middle])
        self.add_operator(position + 1, second, [middle], [target])

    def add_transposes(self):
        operator = self.operators("CONV_2D")[1]
        target = operator.outputs[0]
        shape = self.tensor(target).shape
        self.pair_behind(operator, "TRANSPOSE", "TRANSPOSE", shape=[shape[0], shape[3], shape[1], shape[2]])
        for name, order in (("TRANSPOSE", [0, 3, 1, 2]), ("TRANSPOSE", [0, 2, 3, 1])):
            constant = self.add_tensor(target, shape=[4], quantization=None)
            self.set_data(constant, np.array(order, np.int32), schema.TensorType.INT32)
            transpose = next(
                entry for entry in self.graph.operators if len(entry.inputs) == 1 and self._is(entry, name)
            )
            transpose.inputs = [transpose.inputs[0], constant]

    def _is(self, operator, name):
        return self.model.operatorCodes[operator.opcodeIndex].builtinCode == CODES[name]
