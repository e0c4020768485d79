// Paint what a segmentor of `eyetoy export --out model.onnx` says of a photo, with onnxruntime alone.
//
//     g++ -std=c++17 -O2 segment_onnx.cpp -I onnxruntime/include -L onnxruntime/lib -l onnxruntime -o segment
//     ./segment model.onnx photo.ppm labels.ppm
//
// Of onnxruntime's two interfaces this is the one of C, which stays the same from release to release.

#include <onnxruntime_c_api.h>

#include <cstdio>
#include <memory>

#include "picture.h"

static const OrtApi* ort = OrtGetApiBase()->GetApi(ORT_API_VERSION);

static void check(OrtStatus* status) {
  if (!status) return;
  const std::string text = ort->GetErrorMessage(status);
  ort->ReleaseStatus(status);
  throw std::runtime_error(text);
}

// A pointer that is released with the function of onnxruntime for its type.
template <typename T>
static std::shared_ptr<T> owned(T* pointer, void (*release)(T*)) {
  return {pointer, release};
}

static std::string metadata(const OrtSession* session, const char* key) {
  OrtAllocator* allocator;
  check(ort->GetAllocatorWithDefaultOptions(&allocator));
  OrtModelMetadata* pointer;
  check(ort->SessionGetModelMetadata(session, &pointer));
  auto all = owned(pointer, ort->ReleaseModelMetadata);
  char* text;
  check(ort->ModelMetadataLookupCustomMetadataMap(all.get(), allocator, key, &text));
  const std::string found = text ? text : "";
  if (text) check(ort->AllocatorFree(allocator, text));
  return found;
}

static void run(const char* model, const char* photo, const char* out) {
  if (!ort) throw std::runtime_error("this onnxruntime is older than the headers of this program");
  OrtEnv* env_pointer;
  check(ort->CreateEnv(ORT_LOGGING_LEVEL_ERROR, "segment", &env_pointer));
  auto env = owned(env_pointer, ort->ReleaseEnv);
  OrtSessionOptions* options_pointer;
  check(ort->CreateSessionOptions(&options_pointer));
  auto options = owned(options_pointer, ort->ReleaseSessionOptions);
  OrtSession* session_pointer;
  check(ort->CreateSession(env.get(), model, options.get(), &session_pointer));
  auto session = owned(session_pointer, ort->ReleaseSession);

  const Picture picture = read_picture(photo);
  std::vector<float> x = planes(picture);
  const int64_t shape[] = {1, 3, picture.height, picture.width};
  OrtMemoryInfo* memory_pointer;
  check(ort->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory_pointer));
  auto memory = owned(memory_pointer, ort->ReleaseMemoryInfo);
  OrtValue* images_pointer;
  check(ort->CreateTensorWithDataAsOrtValue(memory.get(), x.data(), x.size() * sizeof(float), shape, 4,
                                            ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, &images_pointer));
  auto images = owned(images_pointer, ort->ReleaseValue);

  const char *input = "images", *output = "labels";
  const OrtValue* inputs[] = {images.get()};
  OrtValue* labels_pointer = nullptr;
  check(ort->Run(session.get(), nullptr, &input, inputs, 1, &output, 1, &labels_pointer));
  auto labels = owned(labels_pointer, ort->ReleaseValue);
  OrtTensorTypeAndShapeInfo* info_pointer;
  check(ort->GetTensorTypeAndShape(labels.get(), &info_pointer));
  auto info = owned(info_pointer, ort->ReleaseTensorTypeAndShapeInfo);
  size_t count;
  check(ort->GetTensorShapeElementCount(info.get(), &count));
  if (count != x.size() / 3) throw std::runtime_error(std::string(model) + " is not a segmentor: no label for each pixel");
  int64_t* data;
  check(ort->GetTensorMutableData(labels.get(), reinterpret_cast<void**>(&data)));
  const std::vector<uint8_t> palette = numbers(metadata(session.get(), "eyetoy.palette"));
  write_picture(out, painted(data, picture.height, picture.width, palette));
}

int main(int count, char** arguments) { return program(count, arguments, "onnx", run); }
