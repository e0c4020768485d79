// The operator eyetoy_mm::NeighborhoodAttention of onnxruntime, by the kernels in the libraries beside this one.
//
// Compiled by eyetoy_mm/export/kernels.py against the headers of an onnxruntime from 1.17 on; what it needs of it has
// been in every version since. Threads are those of the session. Inputs: query, key and value (batch, *spatial, heads,
// dim) of one shape, and the bias or nothing; attributes: kernel_size and dilation of each axis, scale.

#include <dlfcn.h>
#include <onnxruntime_c_api.h>

#include <algorithm>
#include <string>
#include <thread>
#include <vector>

#include "interface.h"

namespace {

constexpr uint32_t API = 17;  // the first with KernelContext_ParallelFor

typedef int (*Forward)(const Problem*, const Strided*, const Strided*, const Strided*, const Strided*);

const OrtApi* api = nullptr;
Forward forward = nullptr;

// --- The kernels ------------------------------------------------------------------------------------------------------

std::vector<std::string> instruction_sets() {  // names of libraries, the best first
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
    return {"avx512", "avx2", "baseline"};
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return {"avx2", "baseline"};
#endif
  return {"baseline"};
}

std::string load_kernels() {  // what is wrong, if anything
  Dl_info here;
  if (!dladdr(reinterpret_cast<void*>(&load_kernels), &here)) return "this library has no path";
  std::string path = here.dli_fname, reason;
  std::string folder = path.substr(0, path.rfind('/') + 1);
  for (const std::string& name : instruction_sets()) {
    void* library = dlopen((folder + name + ".so").c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!library) {
      reason = dlerror();
      continue;
    }
    auto interface = reinterpret_cast<int (*)()>(dlsym(library, "eyetoy_interface"));
    forward = reinterpret_cast<Forward>(dlsym(library, "eyetoy_forward"));
    if (!interface || interface() != INTERFACE || !forward) return folder + name + ".so is of another eyetoy-mm";
    return "";
  }
  return "no kernels beside " + path + ": " + reason;
}

// --- One node ---------------------------------------------------------------------------------------------------------

struct Kernel {
  std::vector<int64_t> kernel_size, dilation;
  float scale;
};

OrtStatus* invalid(const std::string& message) {
  return api->CreateStatus(ORT_INVALID_ARGUMENT, ("NeighborhoodAttention: " + message).c_str());
}

#define RETURN_IF_ERROR(call) \
  if (OrtStatus* status = (call)) return status

OrtStatus* read(const OrtKernelInfo* info, const char* name, std::vector<int64_t>& values) {
  size_t size = 0;
  RETURN_IF_ERROR(api->KernelInfoGetAttributeArray_int64(info, name, nullptr, &size));
  values.resize(size);
  return api->KernelInfoGetAttributeArray_int64(info, name, values.data(), &size);
}

OrtStatus* ORT_API_CALL create(const OrtCustomOp*, const OrtApi*, const OrtKernelInfo* info, void** kernel) {
  Kernel made;
  RETURN_IF_ERROR(read(info, "kernel_size", made.kernel_size));
  RETURN_IF_ERROR(read(info, "dilation", made.dilation));
  RETURN_IF_ERROR(api->KernelInfoGetAttribute_float(info, "scale", &made.scale));
  for (const auto* sizes : {&made.kernel_size, &made.dilation})
    if (sizes->empty() || sizes->size() > 3 || *std::min_element(sizes->begin(), sizes->end()) < 1)
      return invalid("kernel_size and dilation are for 1 to 3 axes, at least 1 each");
  if (made.kernel_size.size() != made.dilation.size()) return invalid("kernel_size and dilation differ in length");
  *kernel = new Kernel(std::move(made));
  return nullptr;
}

void ORT_API_CALL destroy(void* kernel) { delete static_cast<Kernel*>(kernel); }

struct Input {
  float* data = nullptr;
  std::vector<int64_t> shape;
};

OrtStatus* read(const OrtKernelContext* context, size_t index, Input& input) {
  const OrtValue* value = nullptr;
  RETURN_IF_ERROR(api->KernelContext_GetInput(context, index, &value));
  if (!value) return nullptr;
  OrtTensorTypeAndShapeInfo* info = nullptr;
  RETURN_IF_ERROR(api->GetTensorTypeAndShape(value, &info));
  size_t axes = 0;
  OrtStatus* status = api->GetDimensionsCount(info, &axes);
  input.shape.resize(axes);
  if (!status) status = api->GetDimensions(info, input.shape.data(), axes);
  api->ReleaseTensorTypeAndShapeInfo(info);
  if (status) return status;
  return api->GetTensorMutableData(const_cast<OrtValue*>(value), reinterpret_cast<void**>(&input.data));
}

thread_local const OrtKernelContext* current = nullptr;  // the kernels hand over no more than GOMP_parallel takes

void in_threads_of_session(void (*function)(void*), void* data, unsigned threads, unsigned) {
  struct Call {
    void (*function)(void*);
    void* data;
  } call{function, data};
  OrtStatus* status = api->KernelContext_ParallelFor(
      current,
      [](void* shared, size_t) {
        Call* call = static_cast<Call*>(shared);
        call->function(call->data);
      },
      threads, 0, &call);
  if (status) {  // none was started
    api->ReleaseStatus(status);
    function(data);
  }
}

OrtStatus* check(const Kernel& kernel, const Input (&inputs)[4]) {
  const auto& shape = inputs[0].shape;
  const size_t axes = kernel.kernel_size.size();
  if (shape.size() != axes + 3) return invalid("query must be (batch, *spatial, heads, dim) with the axes of kernel_size");
  if (inputs[1].shape != shape || inputs[2].shape != shape) return invalid("query, key and value differ in shape");
  if (shape.back() < 1 || shape.back() > 256) return invalid("dim must be 1 to 256, got " + std::to_string(shape.back()));
  if (!inputs[3].data) return nullptr;
  std::vector<int64_t> table{shape[axes + 1]};
  for (int64_t size : kernel.kernel_size) table.push_back(2 * size - 1);
  return inputs[3].shape == table ? nullptr : invalid("bias must be (heads, 2 * kernel_size - 1 per axis)");
}

Strided strided(const Problem& problem, float* data) {  // contiguous
  Strided x{data, 0, {}, problem.dim};
  Int step = problem.heads * problem.dim;
  for (int axis = 2; axis >= 0; --axis) {
    x.axis[axis] = step;
    step *= problem.length[axis];
  }
  x.batch = step;
  return x;
}

Problem describe(const Kernel& kernel, const std::vector<int64_t>& shape, const float* bias) {
  const int axes = int(kernel.kernel_size.size());
  Problem problem{};
  problem.batch = shape[0], problem.heads = shape[axes + 1], problem.dim = shape[axes + 2];
  for (Int* sizes : {problem.length, problem.kernel, problem.dilation}) std::fill_n(sizes, 3, Int(1));
  bool is_global = !bias;
  Int positions = 1;
  for (int axis = 0; axis < axes; ++axis) {
    const int place = 3 - axes + axis;
    problem.length[place] = shape[1 + axis];
    problem.kernel[place] = kernel.kernel_size[axis];
    problem.dilation[place] = kernel.dilation[axis];
    is_global = is_global && kernel.dilation[axis] == 1 && kernel.kernel_size[axis] >= shape[1 + axis];
    positions *= shape[1 + axis];
  }
  if (is_global) {  // a sequence fills tiles better
    for (Int* sizes : {problem.length, problem.kernel, problem.dilation}) std::fill_n(sizes, 3, Int(1));
    problem.length[2] = problem.kernel[2] = positions;
  }
  problem.scale = kernel.scale;
  problem.threads = std::max(1u, std::thread::hardware_concurrency());  // at most; those of the session take part
  problem.parallel = in_threads_of_session;
  problem.bias = bias;
  return problem;
}

OrtStatus* ORT_API_CALL compute(void* op_kernel, OrtKernelContext* context) {
  const Kernel& kernel = *static_cast<Kernel*>(op_kernel);
  size_t count = 0;
  RETURN_IF_ERROR(api->KernelContext_GetInputCount(context, &count));
  Input inputs[4];
  for (size_t i = 0; i < std::min<size_t>(count, 4); ++i) RETURN_IF_ERROR(read(context, i, inputs[i]));
  RETURN_IF_ERROR(check(kernel, inputs));
  const auto& shape = inputs[0].shape;
  OrtValue* result = nullptr;
  RETURN_IF_ERROR(api->KernelContext_GetOutput(context, 0, shape.data(), shape.size(), &result));
  if (std::count(shape.begin(), shape.end(), 0)) return nullptr;
  float* data = nullptr;
  RETURN_IF_ERROR(api->GetTensorMutableData(result, reinterpret_cast<void**>(&data)));
  const Problem problem = describe(kernel, shape, inputs[3].data);
  const Strided query = strided(problem, inputs[0].data), key = strided(problem, inputs[1].data);
  const Strided value = strided(problem, inputs[2].data), output = strided(problem, data);
  current = context;
  if (forward(&problem, &query, &key, &value, &output) < 0) return api->CreateStatus(ORT_FAIL, "out of memory");
  return nullptr;
}

OrtCustomOp describe_operator() {
  OrtCustomOp op{};
  op.version = API;
  op.GetName = [](const OrtCustomOp*) { return "NeighborhoodAttention"; };
  op.GetExecutionProviderType = [](const OrtCustomOp*) { return static_cast<const char*>(nullptr); };  // a CPU
  op.GetInputTypeCount = [](const OrtCustomOp*) -> size_t { return 4; };
  op.GetInputType = [](const OrtCustomOp*, size_t) { return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT; };
  op.GetInputCharacteristic = [](const OrtCustomOp*, size_t index) {
    return index == 3 ? INPUT_OUTPUT_OPTIONAL : INPUT_OUTPUT_REQUIRED;
  };
  op.GetInputMemoryType = [](const OrtCustomOp*, size_t) { return OrtMemTypeDefault; };
  op.GetOutputTypeCount = [](const OrtCustomOp*) -> size_t { return 1; };
  op.GetOutputType = [](const OrtCustomOp*, size_t) { return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT; };
  op.GetOutputCharacteristic = [](const OrtCustomOp*, size_t) { return INPUT_OUTPUT_REQUIRED; };
  op.GetVariadicInputMinArity = op.GetVariadicInputHomogeneity = [](const OrtCustomOp*) { return 0; };
  op.GetVariadicOutputMinArity = op.GetVariadicOutputHomogeneity = [](const OrtCustomOp*) { return 0; };
  op.GetStartVersion = [](const OrtCustomOp*) { return 1; };
  op.GetEndVersion = [](const OrtCustomOp*) { return INT32_MAX; };
  op.CreateKernelV2 = create;
  op.KernelComputeV2 = compute;
  op.KernelDestroy = destroy;
  return op;
}

}  // namespace

// What onnxruntime calls when the library is registered in the options of a session.
extern "C" __attribute__((visibility("default"))) OrtStatus* ORT_API_CALL RegisterCustomOps(OrtSessionOptions* options,
                                                                                            const OrtApiBase* base) {
  static const OrtCustomOp op = describe_operator();
  api = base->GetApi(API);
  if (!api) return base->GetApi(1)->CreateStatus(ORT_FAIL, "this operator needs onnxruntime 1.17 or newer");
  if (!forward) {
    const std::string reason = load_kernels();
    if (!reason.empty()) return api->CreateStatus(ORT_FAIL, reason.c_str());
  }
  OrtCustomOpDomain* domain = nullptr;  // as long as the process: sessions hold on to it
  RETURN_IF_ERROR(api->CreateCustomOpDomain("eyetoy_mm", &domain));
  RETURN_IF_ERROR(api->CustomOpDomain_Add(domain, &op));
  return api->AddCustomOpDomain(options, domain);
}
