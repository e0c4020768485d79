// What the programs here share. Pictures are binary PPM files, which every tool converts to: magick photo.jpg photo.ppm
#pragma once

#include <cstdint>
#include <cstdio>
#include <exception>
#include <fstream>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

struct Picture {
  int64_t height, width;
  std::vector<uint8_t> rgb;  // (height, width, 3)
};

// The next number of a header, after comments, as GIMP writes them.
inline int64_t header_number(std::istream& file) {
  while ((file >> std::ws).peek() == '#') file.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
  int64_t number = 0;
  file >> number;
  return number;
}

inline Picture read_picture(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string kind;
  Picture picture{};
  file >> kind;
  picture.width = header_number(file);
  picture.height = header_number(file);
  const int64_t most = header_number(file);
  file.get();  // the one space before the pixels
  if (!file || kind != "P6" || picture.width < 1 || picture.height < 1 || most != 255)
    throw std::runtime_error(path + " is not a binary PPM file of 8 bits");
  picture.rgb.resize(picture.height * picture.width * 3);
  file.read(reinterpret_cast<char*>(picture.rgb.data()), picture.rgb.size());
  if (!file) throw std::runtime_error(path + " is cut short");
  return picture;
}

inline void write_picture(const std::string& path, const Picture& picture) {
  std::ofstream file(path, std::ios::binary);
  file << "P6 " << picture.width << " " << picture.height << " 255\n";
  file.write(reinterpret_cast<const char*>(picture.rgb.data()), picture.rgb.size());
  file.close();
  if (!file) throw std::runtime_error(path + " could not be written");
}

// What an exported file takes: (1, 3, height, width), RGB, 0..255.
inline std::vector<float> planes(const Picture& picture) {
  const int64_t count = picture.height * picture.width;
  std::vector<float> x(3 * count);
  for (int64_t i = 0; i < count; ++i)
    for (int64_t c = 0; c < 3; ++c) x[c * count + i] = picture.rgb[3 * i + c];
  return x;
}

// Labels (height, width) in the colours of the classes; a class beyond them is black.
inline Picture painted(const int64_t* labels, int64_t height, int64_t width, const std::vector<uint8_t>& palette) {
  Picture picture{height, width, std::vector<uint8_t>(height * width * 3)};
  for (int64_t i = 0; i < height * width; ++i)
    for (int64_t c = 0; c < 3; ++c) {
      const size_t at = 3 * labels[i] + c;
      picture.rgb[3 * i + c] = at < palette.size() ? palette[at] : 0;
    }
  return picture;
}

// The numbers of a JSON list of colours, [[0, 0, 0], [220, 20, 60]].
inline std::vector<uint8_t> numbers(const std::string& json) {
  std::vector<uint8_t> found;
  for (size_t i = 0; i < json.size();) {
    size_t used = 1;
    if (json[i] >= '0' && json[i] <= '9') found.push_back(std::stoi(json.substr(i), &used));
    i += used;
  }
  return found;
}

// The whole of a program: its three arguments for `run`, and what goes wrong on the standard error.
inline int program(int count, char** arguments, const char* kind,
                   void (*run)(const char* model, const char* photo, const char* out)) {
  if (count != 4) {
    std::fprintf(stderr, "usage: %s MODEL.%s PHOTO.ppm LABELS.ppm\n", arguments[0], kind);
    return 2;
  }
  try {
    run(arguments[1], arguments[2], arguments[3]);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
  return 0;
}
